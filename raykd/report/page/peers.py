"""The page's table of students that taught one another in one trial."""

from raykd.report.page.html import ColumnHead, Table, number_heads
from raykd.report.rows.types import RunData
from raykd.spec import Scalar


def peer_table(run: RunData) -> Table:
    """Returns the accuracies of all students of complete trials and retrainings; empty without peers."""
    epochs = run.epochs_by_trial()
    rows: list[list[Scalar | None]] = []
    for trial in run.complete_trials():
        last = epochs[trial.number][-1] if trial.number in epochs else None
        if last is not None and last.peer_accuracies:
            rows.append([f"trial {trial.number}", "held out", last.accuracy, *last.peer_accuracies])
    for row in run.confirmations:
        if row.peer_accuracies:
            rows.append([f"{row.role}, seed {row.seed}", row.split, row.accuracy, *row.peer_accuracies])
    count = max((len(row) - 3 for row in rows), default=0)
    return Table(
        "Students that taught one another",
        [
            *map(ColumnHead, ("training", "images")),
            *number_heads("deployed (%)", *(f"student {k + 2} (%)" for k in range(count)), decimals=2),
        ],
        [row + [None] * (3 + count - len(row)) for row in rows],
        title="Students that taught one another" if rows else "",
        note="The first student is deployed, exported and selected by: that is fixed before anything is "
        "trained, so that no trial gains by being the best of several draws.",
    )
