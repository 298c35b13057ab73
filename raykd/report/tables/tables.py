"""The tables of one run's report, with documented columns and units."""

import pyarrow as pa

from raykd.report.rows.types import (
    Analysis,
    ClassRow,
    ConfirmationRow,
    EpochRow,
    RunData,
    TrialRow,
    get_seconds,
)
from raykd.report.stats import student_analysis, tests
from raykd.report.stats.importances import Importance, Importances
from raykd.report.tables.columns import FLOAT64, INT64, STRING, TIMESTAMP, Cell, Column, build_table
from raykd.spec import Choice, Dimension


def build_tables(run: RunData, importances: Importances | str) -> dict[str, pa.Table]:
    """Returns all tables by name."""
    return {
        "trials": build_trials(run),
        "epochs": build_epochs(run),
        "confirmations": build_confirmations(run),
        "analyses": build_analyses(run),
        "classes": build_classes(run),
        "importances": build_importances(importances),
        "rank_correlations": build_rank_correlations(run),
    }


def build_trials(run: RunData) -> pa.Table:
    """Returns one row a trial; each searched path is a column under its own name."""
    held_out = f"held_out_{run.metric}"
    columns: list[Column[TrialRow]] = [
        Column("trial", INT64, "", "number of the trial", lambda t: t.number),
        Column("state", STRING, "", "COMPLETE, PRUNED, FAIL, RUNNING or WAITING", lambda t: t.state),
        Column(
            "role",
            STRING,
            "",
            "paper: the paper's point; enqueued: the study's; shared: other methods'; searched",
            lambda t: t.role,
        ),
        Column(held_out, FLOAT64, "%", "averaged weights, at its last epoch", lambda t: t.accuracy),
        Column("epochs_done", INT64, "epochs", "finished epochs", lambda t: t.epochs),
        Column("seconds_per_epoch", FLOAT64, "s", "wall-clock, a mean", lambda t: t.seconds_per_epoch),
        Column("seconds", FLOAT64, "s", "for which it held its devices", get_seconds),
        Column("parameters", INT64, "", "of the student", lambda t: t.parameters),
        Column("started", TIMESTAMP, "UTC", "when it started", lambda t: _to_ms(t.started)),
        Column("ended", TIMESTAMP, "UTC", "when it ended", lambda t: _to_ms(t.ended)),
        Column("device", STRING, "", "where it ran", lambda t: t.device),
        Column("reason", STRING, "", "why it was stopped or failed", lambda t: t.reason),
        Column("breaks", STRING, "", "what its student breaks of the constraints", lambda t: t.breaks),
    ]
    return build_table(columns + [_param_column(run, path) for path in run.space], run.trials)


def _param_column(run: RunData, path: str) -> Column[TrialRow]:
    dimension, unit = run.space[path], run.units.get(path, "")
    description = f"drawn from {dimension}"
    return Column(
        path, _arrow_type(dimension), unit, description, lambda t: _convert(dimension, t.params.get(path))
    )


def build_epochs(run: RunData) -> pa.Table:
    """Returns one row an epoch of a trial."""
    held_out = f"held_out_{run.metric}"
    columns: list[Column[EpochRow]] = [
        Column("trial", INT64, "", "number of the trial", lambda e: e.trial),
        Column("epoch", INT64, "epochs", "1 is the first", lambda e: e.epoch),
        Column(held_out, FLOAT64, "%", "averaged weights", lambda e: e.accuracy),
        Column(f"{held_out}_raw", FLOAT64, "%", "the weights as they are", lambda e: e.accuracy_raw),
        Column("seconds", FLOAT64, "s", "wall-clock time of the epoch", lambda e: e.seconds),
        Column("lr", FLOAT64, "", "learning rate at the end of the epoch", lambda e: e.lr),
    ]
    names = sorted({name for row in run.epochs for name in row.terms})
    rows = [row for trial_rows in run.epochs_by_trial().values() for row in trial_rows]
    return build_table(columns + [_loss_term_column(name) for name in names], rows)


def _loss_term_column(name: str) -> Column[EpochRow]:
    description = "raw loss term, mean over the epoch, before its weight"
    return Column(f"term/{name}", FLOAT64, "", description, lambda e: e.terms.get(name))


def build_confirmations(run: RunData) -> pa.Table:
    """Returns one row a retraining."""
    columns: list[Column[ConfirmationRow]] = [
        Column("role", STRING, "", "best, paper, or a control", lambda r: r.role),
        Column("trial", INT64, "", "whose recipe was retrained; empty for controls", lambda r: r.trial),
        Column("seed", INT64, "", "seed of the retraining", lambda r: r.seed),
        Column(run.metric, FLOAT64, "%", "last epoch, on the split named beside it", lambda r: r.accuracy),
        Column("split", STRING, "", "what it was measured on", lambda r: r.split),
        Column("epochs", INT64, "epochs", "finished epochs", lambda r: r.epochs),
        Column("seconds", FLOAT64, "s", "wall-clock time of the epochs together", lambda r: r.seconds),
    ]
    return build_table(columns, run.confirmations)


def build_analyses(run: RunData) -> pa.Table:
    """Returns one row an analysed retraining."""
    columns: list[Column[tuple[ConfirmationRow, Analysis]]] = [
        Column("role", STRING, "", "best, paper, or a control", lambda r: r[0].role),
        Column("seed", INT64, "", "seed of the retraining", lambda r: r[0].seed),
        Column(
            "agreement", FLOAT64, "%", "test images answered as the teacher does",
            lambda r: r[1].agreement,
        ),
        Column(
            "kl", FLOAT64, "nats", "mean KL divergence of the student from the teacher",
            lambda r: r[1].kl,
        ),
        Column("calibration_error", FLOAT64, "%", "expected, 15 bins", lambda r: r[1].calibration_error),
        Column(
            "calibration_error_scaled", FLOAT64, "%", "the same after temperature scaling",
            lambda r: r[1].calibration_error_scaled,
        ),
        Column("temperature", FLOAT64, "", "the fitted temperature", lambda r: r[1].temperature),
        Column("teacher_accuracy", FLOAT64, "%", "on the same images", lambda r: r[1].teacher_accuracy),
    ]  # fmt: skip
    return build_table(
        columns,
        [
            row_and_analysis
            for analyses in student_analysis.group_analyses(run).values()
            for row_and_analysis in analyses
        ],
    )


def build_classes(run: RunData) -> pa.Table:
    """Returns one row a class and analysed retraining."""
    columns: list[Column[tuple[ConfirmationRow, ClassRow]]] = [
        Column("role", STRING, "", "best, paper, or a control", lambda r: r[0].role),
        Column("seed", INT64, "", "seed of the retraining", lambda r: r[0].seed),
        Column("class", STRING, "", "name of the class", lambda r: str(r[1].name)),
        Column("accuracy", FLOAT64, "%", "of its test images", lambda r: r[1].accuracy),
        Column("teacher_accuracy", FLOAT64, "%", "the teacher's", lambda r: r[1].teacher),
    ]
    analysed = [
        row_and_analysis
        for analyses in student_analysis.group_analyses(run).values()
        for row_and_analysis in analyses
    ]
    return build_table(
        columns, [(row, class_row) for row, analysis in analysed for class_row in analysis.per_class]
    )


def build_importances(importances: Importances | str) -> pa.Table:
    """Returns one row a parameter that varied."""
    description = "growth of the forest's mean absolute error when the parameter is shuffled"
    columns: list[Column[Importance]] = [
        Column("path", STRING, "", "the parameter's path in the recipe", lambda r: r.path),
        Column("importance", FLOAT64, "points", description, lambda r: r.mean),
        Column("low", FLOAT64, "points", "lower end of its 95 % interval", lambda r: r.low),
        Column("high", FLOAT64, "points", "upper end of its 95 % interval", lambda r: r.high),
        Column("n", INT64, "trials", "finished trials that drew the parameter", lambda r: r.n),
    ]
    return build_table(columns, () if isinstance(importances, str) else importances.rows)


def build_rank_correlations(run: RunData) -> pa.Table:
    """Returns one row an epoch before the last."""
    description = "rho of averaged weights among the better half of the trials"
    columns: list[Column[tests.EpochRankCorrelation]] = [
        Column("epoch", INT64, "epochs", "the epoch that is compared with the end", lambda r: r.epoch),
        Column("is_rung", pa.bool_(), "", "whether the pruner judged here", lambda r: r.epoch in run.rungs),
        Column("n", INT64, "trials", "finished trials", lambda r: r.ema.n),
        Column("ema_rho", FLOAT64, "", "Spearman's rho of averaged weights", lambda r: r.ema.rho),
        Column("ema_rho_low", FLOAT64, "", "lower end of its 95 % interval", lambda r: r.ema.low),
        Column("ema_rho_high", FLOAT64, "", "upper end of its 95 % interval", lambda r: r.ema.high),
        Column("raw_rho", FLOAT64, "", "rho of the raw weights with the same end", lambda r: _get_rho(r.raw)),
        Column("ema_rho_better_half", FLOAT64, "", description, lambda r: _get_rho(r.ema_better_half)),
    ]
    return build_table(columns, tests.rank_correlations(run))


def _get_rho(correlation: tests.Correlation | None) -> float | None:
    return correlation.rho if correlation is not None else None


def _to_ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _arrow_type(dimension: Dimension) -> pa.DataType:
    if not isinstance(dimension, Choice):
        return INT64 if dimension.integer else FLOAT64
    types = {type(value) for value in dimension.values}
    if types == {bool}:
        return pa.bool_()
    if types == {int}:
        return INT64
    return FLOAT64 if types <= {int, float} else STRING


def _convert(dimension: Dimension, value: Cell) -> Cell:
    """A parameter's value in its column's type; empty where it does not belong there."""
    arrow_type = _arrow_type(dimension)
    if value is None or arrow_type == STRING:
        return None if value is None else str(value)
    if arrow_type == pa.bool_():
        return value if isinstance(value, bool) else None
    if isinstance(value, bool | str):
        return None
    return int(value) if arrow_type == INT64 else float(value)
