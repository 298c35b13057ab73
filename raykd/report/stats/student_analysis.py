"""What the confirmation measured of students beyond their accuracy (analysis.json), grouped by role.

And the classes that the best one gained.
"""

from collections.abc import Sequence
from math import isfinite

from raykd.report.rows.types import Analysis, ConfirmationRow, RunData

CONTROL = "ce"
AnalysesByRole = dict[str, list[tuple[ConfirmationRow, Analysis]]]


def group_analyses(run: RunData) -> AnalysesByRole:
    """Returns the retrainings that were analysed, by role; the best first."""
    analyses: AnalysesByRole = {}
    for row in sorted(run.confirmations, key=lambda row: (row.role != "best", row.role != "paper", row.role)):
        if row.analysis is not None:
            analyses.setdefault(row.role, []).append((row, row.analysis))
    return analyses


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Returns the mean of those that were measured; None when none was."""
    known = [v for v in values if v is not None and isfinite(v)]
    return sum(known) / len(known) if known else None


def compute_class_gains(analyses: AnalysesByRole) -> list[tuple[str, float, float, float | None]]:
    """Returns (class, best, control, teacher) in % over the seeds that both have; the largest gain first."""
    best, control = (
        {row.seed: analysis for row, analysis in analyses.get(role, [])} for role in ("best", CONTROL)
    )
    seeds = sorted(best.keys() & control.keys())
    best_accuracies, control_accuracies, teacher_accuracies = (
        _average_classes([group[seed] for seed in seeds], name)
        for group, name in ((best, "accuracy"), (control, "accuracy"), (best, "teacher"))
    )
    rows = [
        (name, best_accuracy, control_accuracy, teacher_accuracies.get(name))
        for name, best_accuracy in best_accuracies.items()
        if best_accuracy is not None and (control_accuracy := control_accuracies.get(name)) is not None
    ]
    return sorted(rows, key=lambda row: row[2] - row[1])


def _average_classes(analyses: Sequence[Analysis], name: str) -> dict[str, float | None]:
    values_by_class: dict[str, list[float | None]] = {}
    for analysis in analyses:
        for row in analysis.per_class:
            values_by_class.setdefault(str(row.name), []).append(getattr(row, name))
    return {class_name: mean_of_known(values) for class_name, values in values_by_class.items()}
