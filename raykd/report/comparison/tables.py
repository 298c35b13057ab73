"""The tables of the comparison, with documented columns and units."""

from collections.abc import Sequence

import pyarrow as pa

from raykd.report.arrow import REAL, TEXT, WHOLE, Cell, Column, table
from raykd.report.comparison.figures import so_far
from raykd.report.comparison.lines import Against, Table
from raykd.report.comparison.unequal import unequal
from raykd.report.data import RunData

PAIR = (
    Column("dataset", TEXT, "", "the data set"),
    Column("teacher", TEXT, "", "the teacher's net"),
    Column("student", TEXT, "", "the student's net"),
    Column("method", TEXT, "", "the method, and how its settings were found"),
    Column("run", TEXT, "", "the run it comes from; of controls that several runs measured, the first"),
)


def every(runs: Sequence[RunData], tables: Sequence[Table]) -> dict[str, pa.Table]:
    """All tables by name."""
    return {
        "comparison": compared(tables),
        "seeds": seeds(tables),
        "published": published(tables),
        "anytime": anytime(runs),
        "unequal": different(runs),
    }


def compared(tables: Sequence[Table]) -> pa.Table:
    """One row a line of the page's tables."""
    columns = [
        *PAIR,
        Column("test_accuracy", REAL, "%", "mean over seeds, last epoch"),
        Column("half_interval", REAL, "%", "half of its 95 % t interval"),
        Column("n", WHOLE, "seeds", "retrainings"),
        Column("held_out_accuracy", REAL, "%", "of the trial, averaged weights, last epoch"),
        Column("search_hours", REAL, "device-hours", "of all trials of the search"),
        Column("training_hours", REAL, "device-hours", "of one retraining"),
        *_difference_columns("kd", "KD under the same budget"),
        *_difference_columns("paper", "the paper's point under the same budget"),
    ]
    rows: list[list[Cell]] = []
    for of in tables:
        for line in of.lines:
            mean = line.mean()
            rows.append(
                [of.dataset, of.teacher, of.student, line.name, line.run]
                + ([mean.mean, mean.half, mean.n] if mean else [None, None, 0])
                + [line.held_out, line.search, line.training or None]
                + _difference(line.from_kd)
                + _difference(line.from_paper)
            )
    return table(columns, rows)


def _difference_columns(key: str, what: str) -> list[Column]:
    return [
        Column(f"against_{key}", TEXT, "", f"the line of {what} that this one is compared with"),
        Column(f"from_{key}", REAL, "points", f"mean difference from {what}, paired by seed"),
        Column(f"from_{key}_half_interval", REAL, "points", "half of its 95 % t interval"),
        Column(f"from_{key}_n", WHOLE, "seeds", "common seeds"),
        Column(
            f"from_{key}_p", REAL, "", "paired t test, corrected by Holm over the tests of the pair's table"
        ),
    ]


def _difference(against: Against | None) -> list[Cell]:
    if against is None:
        return [None, None, None, None, None]
    found = against.difference
    return [against.line, found.mean, found.half, found.n, against.p]


def seeds(tables: Sequence[Table]) -> pa.Table:
    """One row a retraining."""
    columns = [
        *PAIR,
        Column("seed", WHOLE, "", "seed of the retraining"),
        Column("test_accuracy", REAL, "%", "last epoch"),
    ]
    rows: list[list[Cell]] = [
        [of.dataset, of.teacher, of.student, line.name, line.run, seed, value]
        for of in tables
        for line in of.lines
        for seed, value in sorted(line.seeds.items())
    ]
    return table(columns, rows)


def published(tables: Sequence[Table]) -> pa.Table:
    """One row a number that a paper or an official code prints."""
    columns = [
        *PAIR[:3],
        Column("method", TEXT, "", "the method's name, and + KD where both losses stand side by side"),
        Column("test_accuracy", REAL, "%", "as printed, with the source's own budget"),
        Column("source", TEXT, "", "who prints it"),
    ]
    rows = {
        (of.dataset, of.teacher, of.student, line.name.split(",")[0], row.value, row.source): None
        for of in tables
        for line in of.lines
        for row in line.published
    }
    return table(columns, [list(row) for row in rows])


def anytime(runs: Sequence[RunData]) -> pa.Table:
    """The best held-out accuracy so far against the cost of the search."""
    columns = [
        Column("run", TEXT, "", "name of the run"),
        Column("hours", REAL, "device-hours", "spent when a trial ended"),
        Column("held_out_accuracy", REAL, "%", "of the best trial that had finished by then"),
    ]
    return table(columns, [[run.name, hours, best] for run in runs for hours, best in so_far(run)])


def different(runs: Sequence[RunData]) -> pa.Table:
    columns = [
        Column("path", TEXT, "", "the setting or fact in which runs differ"),
        Column("value", TEXT, "", "one of its values"),
        Column("runs", TEXT, "", "the runs that have it"),
    ]
    rows: list[list[Cell]] = [
        [path, value, ", ".join(of)] for path, values in unequal(runs) for value, of in values.items()
    ]
    return table(columns, rows)
