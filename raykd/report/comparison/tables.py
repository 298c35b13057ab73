"""The tables of the comparison, with documented columns and units."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from raykd.report.comparison.figures import so_far
from raykd.report.comparison.lines import Against, Line, Table
from raykd.report.comparison.unequal import unequal
from raykd.report.rows.types import PublishedRow, RunData
from raykd.report.stats.tests import Mean, Paired
from raykd.report.tables.columns import REAL, TEXT, WHOLE, Column, table


class Row(NamedTuple):
    """A line of a table, and what is said of it."""

    of: Table
    line: Line
    seed: int = 0
    accuracy: float | None = None
    mean: Mean | None = None
    published: PublishedRow | None = None


def _pair() -> list[Column[Row]]:
    return [
        Column("dataset", TEXT, "", "the data set", lambda r: r.of.dataset),
        Column("teacher", TEXT, "", "the teacher's net", lambda r: r.of.teacher),
        Column("student", TEXT, "", "the student's net", lambda r: r.of.student),
    ]


def _whose() -> list[Column[Row]]:
    run = "the run it comes from; of controls that several runs measured, the first"
    return [
        *_pair(),
        Column("method", TEXT, "", "the method, and how its settings were found", lambda r: r.line.name),
        Column("run", TEXT, "", run, lambda r: r.line.run),
    ]


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
    half = "half of its 95 % t interval"
    columns: list[Column[Row]] = [
        *_whose(),
        Column("test_accuracy", REAL, "%", "mean over seeds", lambda r: r.mean.mean if r.mean else None),
        Column("half_interval", REAL, "%", half, lambda r: r.mean.half if r.mean else None),
        Column("n", WHOLE, "seeds", "retrainings", lambda r: r.mean.n if r.mean else 0),
        Column(
            "held_out_accuracy", REAL, "%", "of the trial, averaged weights, last epoch",
            lambda r: r.line.held_out,
        ),
        Column("search_hours", REAL, "device-hours", "of all its trials", lambda r: r.line.search),
        Column(
            "training_hours", REAL, "device-hours", "of one retraining", lambda r: r.line.training or None
        ),
        *_difference("kd", "KD under the same budget", lambda line: line.from_kd),
        *_difference("paper", "the paper's point under the same budget", lambda line: line.from_paper),
    ]  # fmt: skip
    return table(columns, [Row(of, line, mean=line.mean()) for of in tables for line in of.lines])


def _difference(key: str, what: str, of: Callable[[Line], Against | None]) -> list[Column[Row]]:
    def found(row: Row) -> Paired | None:
        against = of(row.line)
        return against.difference if against else None

    def against(row: Row) -> Against | None:
        return of(row.line)

    p = "paired t test, corrected by Holm over the tests of the pair's table"
    return [
        Column(
            f"against_{key}", TEXT, "", f"the line of {what} that this one is compared with",
            lambda r: one.line if (one := against(r)) else None,
        ),
        Column(
            f"from_{key}", REAL, "points", f"mean difference from {what}, paired by seed",
            lambda r: one.mean if (one := found(r)) else None,
        ),
        Column(
            f"from_{key}_half_interval", REAL, "points", "half of its 95 % t interval",
            lambda r: one.half if (one := found(r)) else None,
        ),
        Column(f"from_{key}_n", WHOLE, "seeds", "common", lambda r: one.n if (one := found(r)) else None),
        Column(f"from_{key}_p", REAL, "", p, lambda r: one.p if (one := against(r)) else None),
    ]  # fmt: skip


def seeds(tables: Sequence[Table]) -> pa.Table:
    """One row a retraining."""
    columns = [
        *_whose(),
        Column("seed", WHOLE, "", "seed of the retraining", lambda r: r.seed),
        Column("test_accuracy", REAL, "%", "last epoch", lambda r: r.accuracy),
    ]
    lines = [(of, line) for of in tables for line in of.lines]
    return table(columns, [Row(*one, *seed) for one in lines for seed in sorted(one[1].seeds.items())])


def published(tables: Sequence[Table]) -> pa.Table:
    """One row a number that a paper or an official code prints."""
    method = "the method's name, and + KD where both losses stand side by side"
    columns = [
        *_pair(),
        Column("method", TEXT, "", method, lambda r: _method(r.line)),
        Column("test_accuracy", REAL, "%", "as printed, with its own budget", lambda r: r.accuracy),
        Column("source", TEXT, "", "who prints it", lambda r: r.published.source if r.published else None),
    ]
    rows = {
        (of.title, _method(line), row): Row(of, line, accuracy=row.value, published=row)
        for of in tables
        for line in of.lines
        for row in line.published
    }
    return table(columns, list(rows.values()))


def _method(line: Line) -> str:
    return line.name.split(",")[0]


def anytime(runs: Sequence[RunData]) -> pa.Table:
    """The best held-out accuracy so far against the cost of the search."""
    best = "of the best trial that had finished by then"
    columns: list[Column[tuple[str, float, float]]] = [
        Column("run", TEXT, "", "name of the run", lambda r: r[0]),
        Column("hours", REAL, "device-hours", "spent when a trial ended", lambda r: r[1]),
        Column("held_out_accuracy", REAL, "%", best, lambda r: r[2]),
    ]
    return table(columns, [(run.name, *point) for run in runs for point in so_far(run)])


def different(runs: Sequence[RunData]) -> pa.Table:
    """One row a value of what differs."""
    columns: list[Column[tuple[str, str, str]]] = [
        Column("path", TEXT, "", "the setting or fact in which runs differ", lambda r: r[0]),
        Column("value", TEXT, "", "one of its values", lambda r: r[1]),
        Column("runs", TEXT, "", "the runs that have it", lambda r: r[2]),
    ]
    found = unequal(runs)
    return table(columns, [(p, v, ", ".join(of)) for p, values in found for v, of in values.items()])
