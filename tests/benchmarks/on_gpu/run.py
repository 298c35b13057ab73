"""The day there is a GPU: whether it computes rightly, then how fast; a section of studies/RECORDS.md.

    make test-gpu     # python tests/benchmarks/on_gpu/run.py --check
    make bench-gpu    # python tests/benchmarks/on_gpu/run.py

It needs no network; noise stands in for CIFAR-100 where RAYKD_DATA has none. Exit code 2: there is no GPU,
1: something is computed wrongly, and nothing was measured. On the CPU, its logic in a minute:

    ... run.py --device cpu --pairs resnet8:resnet8 --ways eager,table --counts 1 --rounds 1 --steps 2 \
        --seconds 1 --methods kd,crd --records /tmp/records.md
"""

import argparse
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[n]) for n in (2, 1)]

import on_gpu.checks as checks  # noqa: E402
import on_gpu.speed as speed  # noqa: E402
import trial  # noqa: E402

from raykd import methods  # noqa: E402
from raykd.store.processors import count_cpus, name_device  # noqa: E402
from raykd.store.provenance import record_provenance  # noqa: E402
from raykd.training.graphs import start_graphs  # noqa: E402

RECORDS = Path(__file__).parents[3] / "studies/RECORDS.md"


def find_driver() -> str:
    """The version of NVIDIA's driver."""
    place = Path("/proc/driver/nvidia/version")
    match = re.search(r"Module\s+(?:for \S+\s+)?([\d.]+)", place.read_text()) if place.exists() else None
    return match[1] if match else "none"


def run_checks(device: torch.device, all_checks: Sequence[checks.Check]) -> bool:
    """Whether all passed; a line each."""
    is_right = True
    for check in all_checks:
        try:
            print(f"ok: {check(device)}", flush=True)
        except Exception as error:
            is_right = False
            print(f"WRONG: {type(error).__name__}: {error}", flush=True)
    return is_right


def write_section(path: Path, title: str, lines: Sequence[str]) -> None:
    """Writes a section of a Markdown file, in the place of one with this title or at the end."""
    text = path.read_text() if path.exists() else "# Records: what was measured\n"
    section = "\n".join([title, "", *lines, ""])
    parts = re.split(r"(?m)^(?=## )", text)
    kept = [part for part in parts if part.partition("\n")[0] != title]
    path.write_text("".join(kept).rstrip("\n") + "\n\n" + section)


def measure(device: torch.device, options: argparse.Namespace) -> list[str]:
    """The lines of the section."""
    pairs = [tuple(pair.split(":")) for pair in options.pairs.split(",")]
    provenance, ways = record_provenance(), options.ways.split(",")
    card = f"{name_device(device)}, driver {find_driver()}, {count_cpus()} CPU cores ({platform.machine()})"
    counts = [int(count) for count in options.counts.split(",")]
    return [
        f"{time.strftime('%F')}, commit {provenance['commit']}, {card}, torch {torch.__version__}.",
        "",
        f"    {' '.join(['python', *sys.argv])}",
        "",
        f"KD, batch {trial.BATCH}: images/s, seconds of a trial of {speed.EPOCHS} x {speed.STEPS} steps, and",
        "times the plain loop (float32, live teacher, two loaders); the loops take turns, the median of",
        f"n = {options.rounds} rounds of {options.steps} steps counts.",
        "",
        *speed.format_pairs(pairs, ways, device, options.rounds, options.steps),
        "",
        f"Trials of {' -> '.join(pairs[0])} at once: images/s of all together, and times one live trial;",
        f"{options.seconds:g} s each, n = 1.",
        "",
        *speed.format_together(pairs[0], counts, device, options.seconds),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks and measures raykd on a GPU.")
    parser.add_argument("--check", action="store_true", help="measure nothing")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", default=",".join(methods.names()))
    parser.add_argument("--pairs", default=",".join(":".join(pair) for pair in trial.PAIRS))
    parser.add_argument("--ways", default=",".join(speed.WAYS))
    parser.add_argument("--counts", default="1,2,4,8", help="of trials at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="of a round")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--records", type=Path, default=RECORDS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} can use no CUDA GPU here: nothing was run", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RAYKD_CACHE"] = cache
        start_graphs(device)  # a stream of its own, which all of it runs on
        if not run_checks(device, checks.list_checks(options.methods.split(","))):
            return 1
        if not options.check:
            lines = measure(device, options)
            write_section(options.records, f"## On {name_device(device)}: correctness and speed", lines)
            print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
