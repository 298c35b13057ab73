"""The tables of one run's report, with documented columns and units."""

import pyarrow as pa

from raykd.report import beyond
from raykd.report.rows.types import Analysis, ClassRow, ConfirmRow, EpochRow, RunData, TrialRow, spent
from raykd.report.stats import tests
from raykd.report.stats.importances import Importance, Importances
from raykd.report.tables.columns import REAL, TEXT, TIME, WHOLE, Cell, Column, table
from raykd.spec import Choice, Dimension


def every(run: RunData, found: Importances | str) -> dict[str, pa.Table]:
    """All tables by name."""
    return {
        "trials": trials(run),
        "epochs": epochs(run),
        "confirmed": confirmed(run),
        "beyond": beyond_accuracy(run),
        "classes": classes(run),
        "importances": importances(found),
        "rank_correlations": rank_correlations(run),
    }


def trials(run: RunData) -> pa.Table:
    """One row a trial; each opened path is a column under its own name."""
    columns: list[Column[TrialRow]] = [
        Column("trial", WHOLE, "", "number of the trial", lambda t: t.number),
        Column("state", TEXT, "", "COMPLETE, PRUNED, FAIL, RUNNING or WAITING", lambda t: t.state),
        Column("role", TEXT, "", "paper: the paper's point; first: the study's; searched", lambda t: t.role),
        Column("held_out_accuracy", REAL, "%", "averaged weights, at its last epoch", lambda t: t.accuracy),
        Column("epochs_done", WHOLE, "epochs", "finished epochs", lambda t: t.epochs),
        Column("seconds_per_epoch", REAL, "s", "wall-clock, a mean", lambda t: t.seconds_per_epoch),
        Column("seconds", REAL, "s", "for which it held its devices", spent),
        Column("parameters", WHOLE, "", "of the student", lambda t: t.parameters),
        Column("started", TIME, "UTC", "when it started", lambda t: _ms(t.started)),
        Column("ended", TIME, "UTC", "when it ended", lambda t: _ms(t.ended)),
        Column("device", TEXT, "", "where it ran", lambda t: t.device),
        Column("reason", TEXT, "", "why it was stopped or failed", lambda t: t.reason),
    ]
    return table(columns + [_drawn(run, path) for path in run.space], run.trials)


def _drawn(run: RunData, path: str) -> Column[TrialRow]:
    dimension, unit = run.space[path], run.units.get(path, "")
    says = f"drawn from {dimension}"
    return Column(path, _type(dimension), unit, says, lambda t: _fit(dimension, t.drawn.get(path)))


def epochs(run: RunData) -> pa.Table:
    """One row an epoch of a trial."""
    columns: list[Column[EpochRow]] = [
        Column("trial", WHOLE, "", "number of the trial", lambda e: e.trial),
        Column("epoch", WHOLE, "epochs", "1 is the first", lambda e: e.epoch),
        Column("held_out_accuracy", REAL, "%", "averaged weights", lambda e: e.accuracy),
        Column("held_out_accuracy_raw", REAL, "%", "the weights as they are", lambda e: e.accuracy_raw),
        Column("seconds", REAL, "s", "wall-clock time of the epoch", lambda e: e.seconds),
        Column("lr", REAL, "", "learning rate at the end of the epoch", lambda e: e.lr),
    ]
    names = sorted({name for row in run.epochs for name in row.terms})
    rows = [row for of in run.curves().values() for row in of]
    return table(columns + [_term(name) for name in names], rows)


def _term(name: str) -> Column[EpochRow]:
    says = "raw loss term, mean over the epoch, before its weight"
    return Column(f"term/{name}", REAL, "", says, lambda e: e.terms.get(name))


def confirmed(run: RunData) -> pa.Table:
    """One row a retraining."""
    columns: list[Column[ConfirmRow]] = [
        Column("role", TEXT, "", "best, paper, or a control", lambda r: r.role),
        Column("trial", WHOLE, "", "whose recipe was retrained; empty for controls", lambda r: r.trial),
        Column("seed", WHOLE, "", "seed of the retraining", lambda r: r.seed),
        Column("accuracy", REAL, "%", "last epoch, on the split named beside it", lambda r: r.accuracy),
        Column("split", TEXT, "", "what the accuracy was measured on", lambda r: r.split),
        Column("epochs", WHOLE, "epochs", "finished epochs", lambda r: r.epochs),
        Column("seconds", REAL, "s", "wall-clock time of the epochs together", lambda r: r.seconds),
    ]
    return table(columns, run.confirm)


def beyond_accuracy(run: RunData) -> pa.Table:
    """One row an analysed retraining."""
    columns: list[Column[tuple[ConfirmRow, Analysis]]] = [
        Column("role", TEXT, "", "best, paper, or a control", lambda r: r[0].role),
        Column("seed", WHOLE, "", "seed of the retraining", lambda r: r[0].seed),
        Column("agreement", REAL, "%", "test images answered as the teacher does", lambda r: r[1].agreement),
        Column("kl", REAL, "nats", "mean KL divergence of the student from the teacher", lambda r: r[1].kl),
        Column("calibration_error", REAL, "%", "expected, 15 bins", lambda r: r[1].calibration_error),
        Column(
            "calibration_error_scaled", REAL, "%", "the same after temperature scaling",
            lambda r: r[1].calibration_error_scaled,
        ),
        Column("temperature", REAL, "", "the fitted temperature", lambda r: r[1].temperature),
        Column("teacher_accuracy", REAL, "%", "on the same images", lambda r: r[1].teacher_accuracy),
    ]  # fmt: skip
    return table(columns, [one for of in beyond.measured(run).values() for one in of])


def classes(run: RunData) -> pa.Table:
    """One row a class and analysed retraining."""
    columns: list[Column[tuple[ConfirmRow, ClassRow]]] = [
        Column("role", TEXT, "", "best, paper, or a control", lambda r: r[0].role),
        Column("seed", WHOLE, "", "seed of the retraining", lambda r: r[0].seed),
        Column("class", TEXT, "", "name of the class", lambda r: str(r[1].name)),
        Column("accuracy", REAL, "%", "of its test images", lambda r: r[1].accuracy),
        Column("teacher_accuracy", REAL, "%", "the teacher's", lambda r: r[1].teacher),
    ]
    analysed = [one for of in beyond.measured(run).values() for one in of]
    return table(columns, [(row, of) for row, analysis in analysed for of in analysis.per_class])


def importances(found: Importances | str) -> pa.Table:
    """One row a field that varied."""
    says = "growth of the forest's mean absolute error when the field is shuffled"
    columns: list[Column[Importance]] = [
        Column("path", TEXT, "", "the field's path in the recipe", lambda r: r.path),
        Column("importance", REAL, "points", says, lambda r: r.mean),
        Column("low", REAL, "points", "lower end of its 95 % interval", lambda r: r.low),
        Column("high", REAL, "points", "upper end of its 95 % interval", lambda r: r.high),
        Column("n", WHOLE, "trials", "finished trials that drew the field", lambda r: r.n),
    ]
    return table(columns, () if isinstance(found, str) else found.rows)


def rank_correlations(run: RunData) -> pa.Table:
    """One row an epoch before the last."""
    says = "rho of averaged weights among the better half of the trials"
    columns: list[Column[tests.RankRow]] = [
        Column("epoch", WHOLE, "epochs", "the epoch that is compared with the end", lambda r: r.epoch),
        Column("rung", pa.bool_(), "", "whether the pruner judged here", lambda r: r.epoch in run.rungs),
        Column("n", WHOLE, "trials", "finished trials", lambda r: r.averaged.n),
        Column("averaged", REAL, "", "Spearman's rho of averaged weights", lambda r: r.averaged.rho),
        Column("averaged_low", REAL, "", "lower end of its 95 % interval", lambda r: r.averaged.low),
        Column("averaged_high", REAL, "", "upper end of its 95 % interval", lambda r: r.averaged.high),
        Column("raw", REAL, "", "rho of the raw weights with the same end", lambda r: _rho(r.raw)),
        Column("averaged_best_half", REAL, "", says, lambda r: _rho(r.best_half)),
    ]
    return table(columns, tests.rank_correlations(run))


def _rho(found: tests.Correlation | None) -> float | None:
    return found.rho if found is not None else None


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _type(dimension: Dimension) -> pa.DataType:
    if not isinstance(dimension, Choice):
        return WHOLE if dimension.integer else REAL
    kinds = {type(value) for value in dimension.values}
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return WHOLE
    return REAL if kinds <= {int, float} else TEXT


def _fit(dimension: Dimension, value: Cell) -> Cell:
    """A drawn value in its column's type; empty where it does not belong there."""
    kind = _type(dimension)
    if value is None or kind == TEXT:
        return None if value is None else str(value)
    if kind == pa.bool_():
        return value if isinstance(value, bool) else None
    if isinstance(value, bool | str):
        return None
    return int(value) if kind == WHOLE else float(value)
