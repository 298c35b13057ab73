"""The tables of the comparison, with documented columns and units."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from raykd.report.comparison.figures import best_so_far
from raykd.report.comparison.recipe_results import BaselineDifference, PairTable, RecipeResult
from raykd.report.comparison.setting_differences import find_setting_differences
from raykd.report.rows.types import PublishedRow, RunData
from raykd.report.stats.tests import MeanInterval, PairedDifference
from raykd.report.tables.columns import FLOAT64, INT64, STRING, Column, build_table


class ResultRow(NamedTuple):
    """A row of a pair's table, or a part of one."""

    table: PairTable
    result: RecipeResult
    seed: int = 0
    accuracy: float | None = None
    mean: MeanInterval | None = None
    published: PublishedRow | None = None


def _pair_columns() -> list[Column[ResultRow]]:
    return [
        Column("dataset", STRING, "", "the data set", lambda r: r.table.dataset),
        Column("teacher", STRING, "", "the teacher's net", lambda r: r.table.teacher),
        Column("student", STRING, "", "the student's net", lambda r: r.table.student),
    ]


def _result_columns() -> list[Column[ResultRow]]:
    run_description = "the run it comes from; of controls that several runs measured, the first"
    return [
        *_pair_columns(),
        Column("method", STRING, "", "the method, and how its settings were found", lambda r: r.result.name),
        Column("run", STRING, "", run_description, lambda r: r.result.run),
    ]


def build_tables(runs: Sequence[RunData], tables: Sequence[PairTable]) -> dict[str, pa.Table]:
    """Returns all tables by name."""
    return {
        "comparison": build_comparison(tables),
        "seeds": build_seeds(tables),
        "published": build_published(tables),
        "anytime": build_anytime(runs),
        "setting_differences": build_setting_differences(runs),
    }


def name_metric(runs: Sequence[RunData]) -> str:
    """Returns the metric of all runs; "score" where they are judged by several."""
    metrics = {run.metric for run in runs}
    return metrics.pop() if len(metrics) == 1 else "score"


def build_comparison(tables: Sequence[PairTable]) -> pa.Table:
    """Returns one row a row of the page's tables."""
    metric = name_metric([run for table in tables for run in table.runs])
    half_description = "half of its 95 % t interval"
    columns: list[Column[ResultRow]] = [
        *_result_columns(),
        Column(f"test_{metric}", FLOAT64, "%", "mean over seeds", lambda r: r.mean.mean if r.mean else None),
        Column("half_width", FLOAT64, "%", half_description, lambda r: r.mean.half_width if r.mean else None),
        Column("n", INT64, "seeds", "retrainings", lambda r: r.mean.n if r.mean else 0),
        Column(
            f"held_out_{metric}", FLOAT64, "%", "of the trial, averaged weights, last epoch",
            lambda r: r.result.held_out_accuracy,
        ),
        Column("search_hours", FLOAT64, "device-hours", "of all its trials", lambda r: r.result.search_hours),
        Column(
            "training_hours", FLOAT64, "device-hours", "of one retraining",
            lambda r: r.result.training_hours or None,
        ),
        *_difference_columns("kd", "KD under the same budget", lambda result: result.kd_difference),
        *_difference_columns(
            "paper", "the paper's point under the same budget", lambda result: result.paper_difference
        ),
    ]  # fmt: skip
    return build_table(
        columns,
        [
            ResultRow(table, result, mean=result.mean_accuracy())
            for table in tables
            for result in table.results
        ],
    )


def _difference_columns(
    key: str, baseline_description: str, get_difference: Callable[[RecipeResult], BaselineDifference | None]
) -> list[Column[ResultRow]]:
    def get_paired(row: ResultRow) -> PairedDifference | None:
        difference = get_difference(row.result)
        return difference.difference if difference else None

    def get_row_difference(row: ResultRow) -> BaselineDifference | None:
        return get_difference(row.result)

    p_description = "paired t test, corrected by Holm over the tests of the pair's table"
    return [
        Column(
            f"{key}_baseline", STRING, "",
            f"the recipe of {baseline_description} that this one is compared with",
            lambda r: value.baseline if (value := get_row_difference(r)) else None,
        ),
        Column(
            f"{key}_difference", FLOAT64, "points",
            f"mean difference from {baseline_description}, paired by seed",
            lambda r: value.mean if (value := get_paired(r)) else None,
        ),
        Column(
            f"{key}_difference_half_width", FLOAT64, "points", "half of its 95 % t interval",
            lambda r: value.half_width if (value := get_paired(r)) else None,
        ),
        Column(
            f"{key}_difference_n", INT64, "seeds", "common",
            lambda r: value.n if (value := get_paired(r)) else None,
        ),
        Column(
            f"{key}_difference_p", FLOAT64, "", p_description,
            lambda r: value.p if (value := get_row_difference(r)) else None,
        ),
    ]  # fmt: skip


def build_seeds(tables: Sequence[PairTable]) -> pa.Table:
    """Returns one row a retraining."""
    metric = name_metric([run for table in tables for run in table.runs])
    columns = [
        *_result_columns(),
        Column("seed", INT64, "", "seed of the retraining", lambda r: r.seed),
        Column(f"test_{metric}", FLOAT64, "%", "last epoch", lambda r: r.accuracy),
    ]
    table_results = [(table, result) for table in tables for result in table.results]
    return build_table(
        columns,
        [
            ResultRow(*table_result, *seed_accuracy)
            for table_result in table_results
            for seed_accuracy in sorted(table_result[1].accuracies.items())
        ],
    )


def build_published(tables: Sequence[PairTable]) -> pa.Table:
    """Returns one row a number that a paper or an official code prints."""
    method_description = "the method's name, and + KD where both losses stand side by side"
    columns = [
        *_pair_columns(),
        Column("method", STRING, "", method_description, lambda r: _method_name(r.result)),
        Column("test_accuracy", FLOAT64, "%", "as printed, with its own budget", lambda r: r.accuracy),
        Column("source", STRING, "", "who prints it", lambda r: r.published.source if r.published else None),
    ]
    rows = {
        (table.title, _method_name(result), published_row): ResultRow(
            table, result, accuracy=published_row.value, published=published_row
        )
        for table in tables
        for result in table.results
        for published_row in result.published
    }
    return build_table(columns, list(rows.values()))


def _method_name(result: RecipeResult) -> str:
    return result.name.split(",")[0]


def build_anytime(runs: Sequence[RunData]) -> pa.Table:
    """Returns the best held-out accuracy so far against the cost of the search."""
    best_description = "of the best trial that had finished by then"
    columns: list[Column[tuple[str, float, float]]] = [
        Column("run", STRING, "", "name of the run", lambda r: r[0]),
        Column("hours", FLOAT64, "device-hours", "spent when a trial ended", lambda r: r[1]),
        Column(f"held_out_{name_metric(runs)}", FLOAT64, "%", best_description, lambda r: r[2]),
    ]
    return build_table(columns, [(run.name, *point) for run in runs for point in best_so_far(run)])


def build_setting_differences(runs: Sequence[RunData]) -> pa.Table:
    """Returns one row a value of what differs."""
    columns: list[Column[tuple[str, str, str]]] = [
        Column("path", STRING, "", "the setting or fact in which runs differ", lambda r: r[0]),
        Column("value", STRING, "", "one of its values", lambda r: r[1]),
        Column("runs", STRING, "", "the runs that have it", lambda r: r[2]),
    ]
    differences = find_setting_differences(runs)
    return build_table(
        columns,
        [
            (path, value, ", ".join(run_names))
            for path, values in differences
            for value, run_names in values.items()
        ],
    )
