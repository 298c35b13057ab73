"""What a study came to: the confirmation, the best recipe, the cost."""

from raykd.report.page.html import (
    EMPTY,
    ColumnHead,
    Table,
    format_hours,
    format_interval,
    format_p,
    format_points,
    number_heads,
)
from raykd.report.rows.types import STATES, RunData, get_seconds, state_label
from raykd.report.stats import tests
from raykd.spec import Scalar


def confirmation_table(run: RunData) -> Table:
    """Returns means over seeds, and differences by seed from the first of the table."""
    groups = tests.accuracies_by_seed(run)
    if not groups:
        return Table()
    first_name, first_seeds = next(iter(groups.items()))
    differences = [
        tests.paired_t_test(first_seeds, seeds) if name != first_name else None
        for name, seeds in groups.items()
    ]
    p_values = tests.holm([difference.p if difference is not None else None for difference in differences])
    rows: list[list[Scalar | None]] = []
    for (name, seeds), difference, p in zip(groups.items(), differences, p_values, strict=True):
        mean = tests.mean_interval(list(seeds.values()))
        lead = EMPTY
        if difference is not None:
            lead = f"{format_interval(difference.mean, difference.half_width, sign=True)} (n={difference.n})"
        rows.append([name, format_interval(mean.mean, mean.half_width), mean.n, lead, format_p(p)])
    rows += [
        [f"published, {row.source}", format_points(row.value), None, None, None] for row in run.published
    ]
    return Table(
        "Confirmation",
        [
            ColumnHead("recipe"),
            *number_heads(run.test_label, "seeds", f"{first_name} ahead by (points)", "p"),
        ],
        rows,
        note="± is half of a 95 % t interval. Differences are paired by seed; p: paired t test"
        + (", corrected by Holm." if len(groups) > 2 else "."),
    )


def best_recipe(run: RunData) -> Table:
    """Returns where the best recipe differs from the paper's."""
    if not run.complete_trials():
        return Table(missing="There is no best recipe before a trial has finished.")
    number, changed = run.complete_trials()[0].number, run.diff_from_paper()
    if not changed:
        return Table(lead=f"Trial {number} is the best; its recipe does not differ from the paper's point.")
    return Table(
        "The best recipe against the paper's",
        [
            ColumnHead("path", is_code=True),
            *(ColumnHead(name, "number", is_code=True) for name in ("paper", "best")),
        ],
        [(run.axis_title(path), *values) for path, values in changed.items()],
        lead=f"Trial {number}; everything that is not listed is as in the paper's point.",
    )


def cost_table(run: RunData) -> Table:
    """Returns the device-hours of each part of the study."""
    parts: list[tuple[str, int | None, float]] = []
    if run.teacher_hours:
        parts.append(("teacher, trained by this study", None, run.teacher_hours))
    for state in STATES:
        seconds = [get_seconds(t) for t in run.trials if t.state == state]
        if seconds and run.search_hours():
            hours = sum(seconds) / 3600 * run.trial_devices
            parts.append((f"search: {state_label(state)} trials", len(seconds), hours))
    if run.confirmations:
        parts.append(("confirmation: retrainings", len(run.confirmations), run.retraining_hours()))
    if parts:
        parts.append(("all", None, sum(hours for _, _, hours in parts)))
    return Table(
        "Cost",
        [ColumnHead("part"), *number_heads("trainings", f"{run.device_kind}-hours")],
        [(name, count, format_hours(hours)) for name, count, hours in parts],
        missing="Nothing has been spent yet.",
    )
