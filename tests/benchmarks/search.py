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

from raykd.driver.search import StudySearch
from raykd.ledger import Ledger
from raykd.run import Run
from raykd.space import Choice, Dimension, Scalar
from raykd.study import Study

TABLE = Path(__file__).with_name("recorded.parquet")
SLOTS, TRIALS, NEAR = 4, 60, 0.2
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


def replay(recorded: list[dict[str, Any]], plain: dict[str, Any], goal: float) -> float | None:
    """Device-seconds until a complete trial reaches the goal; None when none of the trials does."""
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
                return None
            clock, number, epoch, found = heapq.heappop(running)
            spent += found["seconds"][epoch - 1]
            final = epoch == study.recipe.epochs
            result = {
                "epoch": epoch, "accuracy": found["accuracy"][epoch - 1], "final": final,
                "seconds": found["seconds"][epoch - 1], "parameters": 1,
            }  # fmt: skip
            stopped = searcher.heard(str(number), result)
            if final and result["accuracy"] >= goal:
                return spent
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
    good = sum(one["accuracy"][-1] >= best - NEAR for one in recorded)
    print(
        f"{len(recorded)} recorded trials ({about['study']['name']}, commit {about['stamp']['commit']}); the"
    )
    print(f"best {best:.2f} %, {good} within {NEAR} of it; {repeats} x {TRIALS} trials, {SLOTS} at once")
    print("\n| search | device-minutes until within 0.2 points, median (range) | reached | of random's |")
    print("|---|---|---|---|")
    base = 0.0
    for name, search in ARMS.items():
        spent = []
        for seed in range(repeats):
            plain = about["study"] | {"search": search | {"seed": seed}, "budget": {"trials": TRIALS}}
            spent.append(replay(recorded, plain, best - NEAR))
        reached = [one / 60 for one in spent if one is not None]
        middle = statistics.median([one / 60 if one is not None else math.inf for one in spent])
        base = base or middle
        span = f"{min(reached):.1f} to {max(reached):.1f}" if reached else "-"
        print(
            f"| {name} | {middle:.1f} ({span}) | {len(reached)} of {repeats} | {middle / base:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        record(sys.argv[2])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 10)
