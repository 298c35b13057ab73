"""In what the compared runs differ that they should share: named, with each value and its runs."""

from collections import Counter
from collections.abc import Sequence

from raykd.report.rows.types import RunData, format_counts
from raykd.spec import Scalar

PATH_ORDER = (  # what a reader must know before any number
    "trials' ", "budget/", "trials that ended", "recipe/epochs", "recipe/data/", "seeds on the test set",
    "confirm/", "search/", "recipe/student/", "recipe/seed", "commit", "hardware", "recipe/",
)  # fmt: skip
PER_PAIR_PREFIXES = (  # each pair may have its own
    "recipe/student/", "recipe/teacher/", "recipe/teachers/", "recipe/optimizer/", "recipe/schedule/",
)  # fmt: skip
MIXABLE = {"trials' precision": "precision", "trials' device": "device"}  # trials of one run may differ too
SettingDifference = tuple[str, dict[str, list[str]]]  # the path, and {value: names of runs}


def find_setting_differences(runs: Sequence[RunData]) -> list[SettingDifference]:
    """Returns every path in which the runs differ, and every mixture inside a run.

    The teacher's, the optimizer's and the schedule's within one pair only.
    """
    conditions_by_run = [(run, _gather_conditions(run)) for run in runs]
    paths = list(dict.fromkeys(path for _, conditions in conditions_by_run for path in conditions))
    mixed = {path for path, key in MIXABLE.items() for run in runs if len(_count_trials(run, key)) > 1}
    differences = []
    for path in sorted(paths, key=lambda path: (_path_rank(path), path)):
        groups: dict[str, list[tuple[RunData, Scalar | None]]] = {}
        for run, conditions in conditions_by_run:
            pair = f"{run.dataset} {run.teacher} {run.student}" if path.startswith(PER_PAIR_PREFIXES) else ""
            groups.setdefault(pair, []).append((run, conditions.get(path)))
        for group in groups.values():
            values: dict[str, list[str]] = {}
            for run, value in group:
                values.setdefault("none" if value is None else str(value), []).append(run.name)
            if len(values) > 1 or path in mixed:
                differences.append((path, values))
    return differences


def _gather_conditions(run: RunData) -> dict[str, Scalar | None]:
    ended = sum(trial.state in ("COMPLETE", "PRUNED", "FAIL") for trial in run.trials)
    seeds = sorted({row.seed for row in run.confirmations})
    has_hours = run.conditions.get("budget/device_hours") is not None  # equal hours make unequal numbers
    return {
        **run.conditions,
        **{path: _describe_trials(_count_trials(run, key)) for path, key in MIXABLE.items()},
        **({} if has_hours else {"trials that ended": ended}),
        "seeds on the test set": ", ".join(map(str, seeds)) or "none: not confirmed",
    }


def _count_trials(run: RunData, key: str) -> Counter[str]:
    return Counter(environment[key] for environment in run.environments if key in environment)


def _describe_trials(counts: Counter[str]) -> str:
    """The one value of all trials; of several each with its number of trials."""
    return format_counts(counts) if len(counts) > 1 else next(iter(counts), "unknown")


def _path_rank(path: str) -> int:
    return next((i for i, prefix in enumerate(PATH_ORDER) if path.startswith(prefix)), len(PATH_ORDER))
