"""What the driver costs: 1,000 trials that only sleep, two at a time, through Ray Tune and Optuna's journal.

python tests/benchmarks/driver.py [trials ...]      one line for each number of trials

overhead: wall-clock seconds a trial beyond its share of the sleep. A driver that keeps up grows linearly.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray import tune

from raykd.driver.searcher import StudySearch
from raykd.driver.session import connect
from raykd.driver.tune_run import run_trials
from raykd.store.run_files import RunFiles
from raykd.study.study import Study

EPOCHS, NAP, SLOTS = 3, 0.02, 2


def sleeper(config: dict[str, Any]) -> None:
    for epoch in range(1, EPOCHS + 1):
        time.sleep(NAP)
        accuracy = 50 + 10 * config["draw"] + epoch
        final = epoch == EPOCHS
        tune.report({"epoch": epoch, "accuracy": accuracy, "final": final, "seconds": NAP, "parameters": 1})


def study(trials: int) -> Study:
    plain = {
        "name": "sleep",
        "recipe": {
            "data": {"name": "digits"}, "student": {"net": "resnet8"}, "method": {"name": "dcd"},
            "teacher": {"net": "resnet14", "weights": "none.pth"}, "epochs": EPOCHS,
        },
        "budget": {"trials": trials},
        "confirm": None,
    }  # fmt: skip
    return Study.parse(plain, "benchmark")


def measure(trials: int) -> None:
    """In a process of its own, so that the memory is this many trials' alone."""
    with tempfile.TemporaryDirectory() as folder, connect(None):
        settings, run_files = study(trials), RunFiles(f"{folder}/sleep")
        run_files.begin(settings.to_dict())
        searcher = StudySearch(
            settings, run_files, lambda number, params: {"draw": number % 10}, lambda: SLOTS, lambda row: None
        )
        started = time.perf_counter()
        run_trials(searcher, tune.with_resources(sleeper, {"cpu": 1}), reuse_actors=True)
        seconds = time.perf_counter() - started
        assert searcher.is_done() and searcher.num_ended() == trials
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        num_bytes = sum(path.stat().st_size for path in files)
    seconds_per_trial, sleep_per_trial = seconds / trials, EPOCHS * NAP / SLOTS
    overhead_ms = 1000 * (seconds_per_trial - sleep_per_trial)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {trials:>6,} | {seconds:>7.1f} | {overhead_ms:>8.1f} | {peak:>6.0f} "
        f"| {num_bytes / trials / 1024:>6.1f} | {len(files) / trials:>5.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(int(sys.argv[2]))
    else:
        print("| trials | seconds | overhead, ms a trial | peak memory, MB | KiB a trial | files a trial |")
        print("|---|---|---|---|---|---|")
        for count in [int(word) for word in sys.argv[1:]] or [125, 250, 500, 1000]:
            subprocess.run([sys.executable, __file__, "--one", str(count)], check=True)
