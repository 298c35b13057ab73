"""About how many kernels a step launches on a GPU, counted on fake CUDA tensors, by method and pair.

python tests/benchmarks/launches.py [--record]    # --record: write what tests/training/test_gpu.py holds
"""

import json
import os
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from support.fake_cuda import FakeCuda  # noqa: E402
from support.gpu_steps import PAIRS, WIDE, make_dataset, make_recipe, make_trainer, take_steps  # noqa: E402

from raykd import methods  # noqa: E402
from raykd.store.provenance import record_provenance  # noqa: E402


def main(*options: str) -> None:
    dataset, counts = make_dataset(), {}
    print(f"{time.strftime('%F')}, commit {record_provenance()['commit']}; a step, batch 64, bfloat16\n")
    print(f"| method | {' | '.join(' -> '.join(pair) for pair in (WIDE, *PAIRS))} |")
    print(f"|---|{'---|' * (1 + len(PAIRS))}")
    with FakeCuda() as gpu:
        for name in methods.names():
            recipes = (make_recipe(name, pair) for pair in (WIDE, *PAIRS))
            counts[name] = [take_steps(gpu, make_trainer(recipe, dataset)) for recipe in recipes]
            print(f"| {name} | {' | '.join(map(str, counts[name]))} |", flush=True)
    if "--record" in options:
        recorded = {f"bfloat16 {name}": row[0] for name, row in counts.items()}
        (TESTS / "training/launches.json").write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # fake parameters must never be freed
