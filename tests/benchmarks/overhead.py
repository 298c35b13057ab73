"""Where the seconds of a small study go: steps (training and its evaluation), and everything else.

    python tests/benchmarks/overhead.py [STUDY]

Launches the study (default: the quickstart, 12 trials on digits) as a process of its own, in a fresh storage
with an empty cache, and reads when its trainings ran steps from the run's own files. Seconds in which at
least one training ran count as steps, however many did so at once.
"""

import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from raykd.run import Run
from raykd.store.folder import Folder
from raykd.store.provenance import record_provenance

QUICKSTART = str(Path(__file__).parents[2] / "studies/quickstart.yaml")


class Span(NamedTuple):
    begin: float
    end: float


def read_span(folder: Folder) -> Span:
    """From the first step of a training to the end of its last epoch, by the clock."""
    epochs = folder.read_json("epochs.json")
    assert epochs is not None
    end = (Path(folder.uri) / "epochs.json").stat().st_mtime
    return Span(end - sum(epoch["seconds"] for epoch in epochs), end)


def sum_covered(spans: list[Span]) -> float:
    """Seconds in which at least one of them ran."""
    total, reached = 0.0, float("-inf")
    for span in sorted(spans):
        total += max(0.0, span.end - max(span.begin, reached))
        reached = max(reached, span.end)
    return total


def main(study: str = QUICKSTART) -> None:
    with tempfile.TemporaryDirectory() as folder:
        launched = time.time()
        command = [sys.executable, "-m", "raykd", "launch", study, "--storage", folder]
        environment = os.environ | {"RAYKD_CACHE": f"{folder}/cache"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        ended = time.time()
        (run,) = (path.parent for path in Path(folder).glob("*/study.yaml"))
        run_files = Run.open(str(run)).files
        run_started = datetime.fromisoformat(
            run_files.folder.read_json("provenance.json")["started"]
        ).timestamp()  # type: ignore[index]
        rows = run_files.trials()
        stages = {
            "teacher": [read_span(run_files.folder / "teacher")],
            "search": [read_span(run_files.trial(row["number"])) for row in rows],
            "confirmation": [read_span(Folder(str(path))) for path in sorted(run.glob("confirm/*"))],
        }
    provenance = record_provenance()
    print(f"{time.strftime('%F')}, {provenance['hardware']}, commit {provenance['commit']}, n = 1")
    print(f"{Path(study).name}\n")
    print("| | seconds | of them in steps |")
    print("|---|---|---|")
    print(f"| the process starts, checks the study and its data | {run_started - launched:.0f} | 0 |")
    reached, steps = run_started, 0.0
    for name, spans in stages.items():
        first, last = min(spans).begin, max(span.end for span in spans)
        print(f"| to the first step of the {name} | {first - reached:.0f} | 0 |")
        print(f"| {name}: {len(spans)} trainings | {last - first:.0f} | {sum_covered(spans):.0f} |")
        reached, steps = last, steps + sum_covered(spans)
    print(f"| the end: report and export | {ended - reached:.0f} | 0 |")
    print(f"| all | {ended - launched:.0f} | {steps:.0f} ({steps / (ended - launched):.0%}) |")


if __name__ == "__main__":
    main(*sys.argv[1:])
