"""How many device-hours a search needs, replayed in seconds on trials that were really trained.

python tests/benchmarks/replay.py record RUN    keep the complete trials of a run in recorded.parquet
python tests/benchmarks/replay.py [repeats]     replay searches on them

A sampled point gets the results of the recorded trial nearest to it (ranges scaled to 0..1, logarithmic ones
by the exponent; a choice that differs counts 1): its accuracies and seconds by epoch. The searcher, its
sampler, its pruner and its journal are the real ones; only the training is looked up.
"""

import heapq
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raykd.driver.searcher import StudySearch
from raykd.run import Run
from raykd.spec import Choice, Dimension, Scalar
from raykd.store.provenance import record_provenance
from raykd.store.run_files import RunFiles
from raykd.study.study import Study

TABLE = Path(__file__).with_name("recorded.parquet")
SLOTS, TRIALS = 4, 60
NEAR = (0.2, 1.0)  # points: the goal, and one that more than a lucky trial reaches
ARMS: dict[str, dict[str, Any]] = {
    "random, no pruning": {"sampler": {"kind": "random"}, "pruner": {"kind": "none"}},
    "random, halving": {"sampler": {"kind": "random"}, "pruner": {"kind": "halving"}},
    "TPE, no pruning": {"sampler": {"kind": "tpe"}, "pruner": {"kind": "none"}},
    "TPE, halving": {"sampler": {"kind": "tpe"}, "pruner": {"kind": "halving"}},
    "rungs_gp": {"sampler": {"kind": "rungs_gp"}, "pruner": {"kind": "rungs_gp"}},
}


def record(path: str) -> None:
    run = Run.open(path)
    rows = [row for row in run.files.trials() if row["state"] == "COMPLETE"]
    curves = [run.files.epochs(row["number"]) for row in rows]
    table = pa.table(
        {
            "params": [json.dumps(row["params"]) for row in rows],
            "accuracy": [[epoch["accuracy"] for epoch in curve] for curve in curves],
            "accuracy_raw": [[epoch["accuracy_raw"] for epoch in curve] for curve in curves],
            "seconds": [[epoch["seconds"] for epoch in curve] for curve in curves],
        }
    )
    provenance = run.files.folder.read_json("provenance.json")
    metadata = {"study": json.dumps(run.files.study()), "provenance": json.dumps(provenance)}
    pq.write_table(table.replace_schema_metadata(metadata), TABLE, compression="zstd")
    print(f"{TABLE.name}: {len(rows)} trials of {run.files.name}, {TABLE.stat().st_size:,} bytes")


def normalize(dimension: Dimension, value: Scalar) -> float | Scalar:
    """Where a value stands in its range, 0 to 1; a choice stands for itself."""
    if isinstance(dimension, Choice):
        return value
    position, low, high = (
        math.log(v) if dimension.log else v for v in (value, dimension.low, dimension.high)
    )
    return (position - low) / (high - low)


def distance(space: dict[str, Dimension], a: dict[str, Scalar], b: dict[str, Scalar]) -> float:
    total = 0.0
    for path, dimension in space.items():
        if (path in a) != (path in b):
            total += 1
        elif path in a:
            x, y = normalize(dimension, a[path]), normalize(dimension, b[path])
            total += float(x != y) if isinstance(dimension, Choice) else (x - y) ** 2
    return total


def replay(recorded: list[dict[str, Any]], plain: dict[str, Any]) -> list[tuple[float, float]]:
    """Of each complete trial of a search: the device-seconds spent when it ended, and its accuracy."""
    complete: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        study, run_files = Study.parse(plain, "replay"), RunFiles(f"{folder}/run")
        run_files.begin(study.to_dict())
        searcher = StudySearch(study, run_files, lambda _, params: params, lambda: SLOTS, lambda row: None)
        running: list[
            tuple[float, int, int, dict[str, Any]]
        ] = []  # (when the epoch ends, number, epoch, recorded trial)
        spent, clock, begun = 0.0, 0.0, 0
        while True:
            while isinstance(params := searcher.suggest(str(begun)), dict):
                trial = min(recorded, key=lambda trial: distance(searcher.space, trial["params"], params))
                heapq.heappush(running, (clock + trial["seconds"][0], begun, 1, trial))
                begun += 1
            if not running:
                return complete
            clock, number, epoch, trial = heapq.heappop(running)
            spent += trial["seconds"][epoch - 1]
            final = epoch == study.recipe.epochs
            result = {
                "epoch": epoch, "accuracy": trial["accuracy"][epoch - 1], "final": final,
                "seconds": trial["seconds"][epoch - 1], "parameters": 1,
            }  # fmt: skip
            stopped = searcher.record_epoch(str(number), result)
            if final:
                complete.append((spent, float(trial["accuracy"][-1])))
            if final or stopped:
                searcher.on_trial_complete(str(number), result)
            else:
                heapq.heappush(running, (clock + trial["seconds"][epoch], number, epoch + 1, trial))


def main(repeats: int) -> None:
    table = pq.read_table(TABLE)
    metadata = {
        key.decode(): json.loads(value) for key, value in table.schema.metadata.items() if key != b"pandas"
    }
    recorded = [row | {"params": json.loads(row["params"])} for row in table.to_pylist()]
    best = max(trial["accuracy"][-1] for trial in recorded)
    commit, run_name = metadata["provenance"]["commit"], metadata["study"]["name"]
    print(
        f"{len(recorded)} recorded trials ({run_name}, commit {commit}), the best {best:.2f} %; "
        f"{record_provenance()['commit']}"
    )
    print(f"replayed {repeats} times: {TRIALS} trials, {SLOTS} at once")
    searches: dict[str, list[list[tuple[float, float]]]] = {}
    for name, search in ARMS.items():
        for seed in range(repeats):
            plain = metadata["study"] | {"search": search | {"seed": seed}, "budget": {"trials": TRIALS}}
            searches.setdefault(name, []).append(replay(recorded, plain))
    for near in NEAR:
        good = sum(trial["accuracy"][-1] >= best - near for trial in recorded)
        print(f"\nUntil within {near} points of the best ({good} of the {len(recorded)} trials are):\n")
        print("| search | device-minutes, median (range of those that got there) | reached | of random's |")
        print("|---|---|---|---|")
        base = 0.0
        for name, replays in searches.items():
            minutes = [minutes_until(complete, best - near) for complete in replays]
            median, reached = statistics.median(minutes), [m for m in minutes if m < math.inf]
            base = base or median
            span = f"{min(reached):.1f} to {max(reached):.1f}" if reached else "-"
            print(f"| {name} | {median:.1f} ({span}) | {len(reached)} of {repeats} | {median / base:.2f} |")


def minutes_until(complete: list[tuple[float, float]], goal: float) -> float:
    """Device-minutes until a trial reached the goal; infinite where none did."""
    return next((spent / 60 for spent, accuracy in complete if accuracy >= goal), math.inf)


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        record(sys.argv[2])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 10)
