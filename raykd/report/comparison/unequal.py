"""In what the compared runs differ that they should share: named, with each value and its runs."""

from collections.abc import Sequence

from raykd.report.rows.types import RunData
from raykd.spec import Scalar

FIRST = (  # what a reader must know before any number
    "budget/", "trials that ended", "recipe/epochs", "recipe/data/", "seeds on the test set", "confirm/",
    "search/", "recipe/seed", "commit", "hardware", "recipe/",
)  # fmt: skip
OF_PAIR = ("recipe/teacher/", "recipe/optimizer/", "recipe/schedule/")  # each pair may have its own
Differs = tuple[str, dict[str, list[str]]]  # the path, and {value: names of runs}


def unequal(runs: Sequence[RunData]) -> list[Differs]:
    """Every path in which the runs differ; the teacher's and the schedule's within one pair only."""
    told = [(run, _conditions(run)) for run in runs]
    paths = list(dict.fromkeys(path for _, of in told for path in of))
    found = []
    for path in sorted(paths, key=lambda path: (_rank(path), path)):
        groups: dict[str, list[tuple[RunData, Scalar | None]]] = {}
        for run, of in told:
            pair = f"{run.dataset} {run.teacher} {run.student}" if path.startswith(OF_PAIR) else ""
            groups.setdefault(pair, []).append((run, of.get(path)))
        for group in groups.values():
            values: dict[str, list[str]] = {}
            for run, value in group:
                values.setdefault("none" if value is None else str(value), []).append(run.name)
            if len(values) > 1:
                found.append((path, values))
    return found


def _conditions(run: RunData) -> dict[str, Scalar | None]:
    ended = sum(trial.state in ("COMPLETE", "PRUNED", "FAIL") for trial in run.trials)
    seeds = sorted({row.seed for row in run.confirm})
    return {
        **run.conditions,
        "trials that ended": ended,
        "seeds on the test set": ", ".join(map(str, seeds)) or "none: not confirmed",
    }


def _rank(path: str) -> int:
    return next((i for i, start in enumerate(FIRST) if path.startswith(start)), len(FIRST))
