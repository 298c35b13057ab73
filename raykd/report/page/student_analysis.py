"""The page's tables beyond accuracy, measured on the test set.

How like its teacher a confirmed student answers, how calibrated and how fast it is, and on which classes it
gained.
"""

from raykd.report.page.html import ColumnHead, Table, format_points, number_heads
from raykd.report.rows.types import RunData
from raykd.report.stats.student_analysis import CONTROL, compute_class_gains, group_analyses, mean_of_known
from raykd.spec import Scalar

MAX_CLASSES, MAX_LOSSES = 10, 3  # of the table of gains; of these, those that gained least
MEASURES = {
    "agreement": ColumnHead("agreement (%)", "number", 2),
    "kl": ColumnHead("KL (nats)", "number", 3),
    "calibration_error": ColumnHead("calibration error (%)", "number", 2),
    "calibration_error_scaled": ColumnHead("scaled (%)", "number", 2),
    "temperature": ColumnHead("temperature", "number", 2),
}


def analysis_table(run: RunData) -> Table:
    """Returns agreement and calibration of each recipe, means over its seeds."""
    analyses = group_analyses(run)
    rows: list[list[Scalar | None]] = []
    for role, group in analyses.items():
        means = [mean_of_known([getattr(analysis, name) for _, analysis in group]) for name in MEASURES]
        rows.append([role, len(group), mean_of_known([row.accuracy for row, _ in group]), *means])
    splits = [group[0][1].temperature_split for group in analyses.values()]
    return Table(
        "Beyond accuracy",
        [
            ColumnHead("recipe"),
            ColumnHead("seeds", "number"),
            ColumnHead(f"{run.metric_title} (%)", "number", 2),
            *MEASURES.values(),
        ],
        rows,
        note="Means over seeds, on the test set. Agreement with the teacher's answers and KL(teacher ‖ "
        "student); expected calibration error in 15 bins; scaled: after dividing the logits by the "
        f"temperature, fitted on {(splits or [None])[0] or 'an unnamed split'}.",
        missing="No retraining was analysed beyond its accuracy.",
    )


def net_table(run: RunData) -> Table:
    """Returns student and teacher side by side: accuracy, parameters, throughput."""
    rows: list[list[Scalar | None]] = []
    first_group = next(iter(group_analyses(run).values()), [])
    for net, name in (("student", run.student), ("teacher", run.teacher)) if first_group else ():
        accuracies = [
            row.top1 if net == "student" else analysis.teacher_accuracy for row, analysis in first_group
        ]
        size = mean_of_known([analysis.parameters.get(net) for _, analysis in first_group])
        speed = mean_of_known([analysis.images_per_second.get(net) for _, analysis in first_group])
        rows.append(
            [net, name, format_points(mean_of_known(accuracies)), _format_count(size), _format_count(speed)]
        )
    heads = [
        *map(ColumnHead, ("net", "name")),
        *number_heads("test accuracy (%)", "parameters", "images / s"),
    ]
    return Table("Student and teacher", heads, rows)


def _format_count(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def class_gain_table(run: RunData) -> Table:
    """Returns the classes that gained most against the control, and those that gained least."""
    analyses = group_analyses(run)
    gains = compute_class_gains(analyses)
    is_cut = len(gains) > MAX_CLASSES
    shown = [*gains[: MAX_CLASSES - MAX_LOSSES], *gains[-MAX_LOSSES:]] if is_cut else gains
    title = f"Classes that gained most against {CONTROL}"
    return Table(
        title,
        [
            ColumnHead("class"),
            *number_heads("best (%)", f"{CONTROL} (%)", "gain (points)", "teacher (%)", decimals=2),
        ],
        [
            (name, best, control, format_points(best - control, sign=True), teacher)
            for name, best, control, teacher in shown
        ],
        title + (f" ({len(shown)} of {len(gains)} classes: the most and the least)" if is_cut else ""),
        missing=f"Classes need per-class accuracies of best and of the control {CONTROL}."
        if analyses
        else "",
    )
