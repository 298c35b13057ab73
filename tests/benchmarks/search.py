"""How many device-hours a search needs, replayed in seconds on trials that were really trained.

python tests/benchmarks/search.py record RUN    keep the complete trials of a run in recorded.parquet
python tests/benchmarks/search.py [repeats]     replay searches on them

A drawn point is answered by the recorded trial nearest to it (ranges scaled to 0..1, logarithmic ones by the
exponent; a choice that differs counts 1), with that trial's accuracies and seconds, epoch by epoch. The
searcher, its sampler, its pruner and its journal are the real ones; only the training is looked up.
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
from raykd.store.provenance import stamp
from raykd.store.run_files import Ledger
from raykd.study.study import Study

TABLE = Path(__file__).with_name("recorded.parquet")
SLOTS, TRIALS = 4, 60
NEAR = (0.2, 1.0)  # points: the goal, and one that more than a lucky trial reaches
ARMS: dict[str, dict[str, Any]] = {
    "random, no pruning": {"sampler": {"kind": "random"}, "pruner": {"kind": "none"}},
    "random, halving": {"sampler": {"kind": "random"}, "pruner": {"kind": "halving"}},
    "TPE, no pruning": {"sampler": {"kind": "tpe"}, "pruner": {"kind": "none"}},
    "TPE, halving": {"sampler": {"kind": "tpe"}, "pruner": {"kind": "halving"}},
}


def record(path: str) -> None:
    run = Run.open(path)
    rows = [row for row in run.ledger.trials() if row["state"] == "COMPLETE"]
    curves = [run.ledger.epochs(row["number"]) for row in rows]
    table = pa.table(
        {
            "drawn": [json.dumps(row["drawn"]) for row in rows],
            "accuracy": [[epoch["accuracy"] for epoch in curve] for curve in curves],
            "accuracy_raw": [[epoch["accuracy_raw"] for epoch in curve] for curve in curves],
            "seconds": [[epoch["seconds"] for epoch in curve] for curve in curves],
        }
    )
    stamp = run.ledger.folder.read_json("stamp.json")
    about = {"study": json.dumps(run.ledger.study()), "stamp": json.dumps(stamp)}
    pq.write_table(table.replace_schema_metadata(about), TABLE, compression="zstd")
    print(f"{TABLE.name}: {len(rows)} trials of {run.ledger.name}, {TABLE.stat().st_size:,} bytes")


def place(dimension: Dimension, value: Scalar) -> float | Scalar:
    """Where a value stands in its range, 0 to 1; a choice stands for itself."""
    if isinstance(dimension, Choice):
        return value
    at, low, high = (math.log(v) if dimension.log else v for v in (value, dimension.low, dimension.high))
    return (at - low) / (high - low)


def distance(space: dict[str, Dimension], a: dict[str, Scalar], b: dict[str, Scalar]) -> float:
    total = 0.0
    for path, dimension in space.items():
        if (path in a) != (path in b):
            total += 1
        elif path in a:
            x, y = place(dimension, a[path]), place(dimension, b[path])
            total += float(x != y) if isinstance(dimension, Choice) else (x - y) ** 2
    return total


def replay(recorded: list[dict[str, Any]], plain: dict[str, Any]) -> list[tuple[float, float]]:
    """Of each complete trial of a search: the device-seconds spent when it ended, and its accuracy."""
    complete: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        study, ledger = Study.parse(plain, "replay"), Ledger(f"{folder}/run")
        ledger.begin(study.plain())
        searcher = StudySearch(study, ledger, lambda _, drawn: drawn, lambda: SLOTS, lambda row: None)
        running: list[
            tuple[float, int, int, dict[str, Any]]
        ] = []  # (when the epoch ends, trial, epoch, what)
        spent, clock, begun = 0.0, 0.0, 0
        while True:
            while isinstance(drawn := searcher.suggest(str(begun)), dict):
                found = min(recorded, key=lambda one: distance(searcher.space, one["drawn"], drawn))
                heapq.heappush(running, (clock + found["seconds"][0], begun, 1, found))
                begun += 1
            if not running:
                return complete
            clock, number, epoch, found = heapq.heappop(running)
            spent += found["seconds"][epoch - 1]
            final = epoch == study.recipe.epochs
            result = {
                "epoch": epoch, "accuracy": found["accuracy"][epoch - 1], "final": final,
                "seconds": found["seconds"][epoch - 1], "parameters": 1,
            }  # fmt: skip
            stopped = searcher.heard(str(number), result)
            if final:
                complete.append((spent, float(found["accuracy"][-1])))
            if final or stopped:
                searcher.on_trial_complete(str(number), result)
            else:
                heapq.heappush(running, (clock + found["seconds"][epoch], number, epoch + 1, found))


def main(repeats: int) -> None:
    table = pq.read_table(TABLE)
    about = {
        key.decode(): json.loads(value) for key, value in table.schema.metadata.items() if key != b"pandas"
    }
    recorded = [one | {"drawn": json.loads(one["drawn"])} for one in table.to_pylist()]
    best = max(one["accuracy"][-1] for one in recorded)
    ran, run = about["stamp"]["commit"], about["study"]["name"]
    print(
        f"{len(recorded)} recorded trials ({run}, commit {ran}), the best {best:.2f} %; {stamp()['commit']}"
    )
    print(f"replayed {repeats} times: {TRIALS} trials, {SLOTS} at once")
    searches: dict[str, list[list[tuple[float, float]]]] = {}
    for name, search in ARMS.items():
        for seed in range(repeats):
            plain = about["study"] | {"search": search | {"seed": seed}, "budget": {"trials": TRIALS}}
            searches.setdefault(name, []).append(replay(recorded, plain))
    for near in NEAR:
        good = sum(one["accuracy"][-1] >= best - near for one in recorded)
        print(f"\nUntil within {near} points of the best ({good} of the {len(recorded)} trials are):\n")
        print("| search | device-minutes, median (range of those that got there) | reached | of random's |")
        print("|---|---|---|---|")
        base = 0.0
        for name, found in searches.items():
            spent = [reached(one, best - near) for one in found]
            middle, there = statistics.median(spent), [one for one in spent if one < math.inf]
            base = base or middle
            span = f"{min(there):.1f} to {max(there):.1f}" if there else "-"
            print(f"| {name} | {middle:.1f} ({span}) | {len(there)} of {repeats} | {middle / base:.2f} |")


def reached(complete: list[tuple[float, float]], goal: float) -> float:
    """Device-minutes until a trial reached the goal; infinite where none did."""
    return next((spent / 60 for spent, accuracy in complete if accuracy >= goal), math.inf)


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        record(sys.argv[2])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 10)
