"""The tables of one run's report, with documented columns and units."""

import pyarrow as pa

from raykd.report import beyond, stats
from raykd.report.arrow import REAL, TEXT, TIME, WHOLE, Cell, Column, table
from raykd.report.data import RunData
from raykd.report.importances import Importances
from raykd.space import Choice, Dimension


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
    columns = [
        Column("trial", WHOLE, "", "number of the trial"),
        Column("state", TEXT, "", "COMPLETE, PRUNED, FAIL, RUNNING or WAITING"),
        Column("role", TEXT, "", "paper: the paper's point; first: given by the study; searched: drawn"),
        Column("held_out_accuracy", REAL, "%", "averaged weights, at the trial's last epoch"),
        Column("epochs_done", WHOLE, "epochs", "finished epochs"),
        Column("seconds_per_epoch", REAL, "s", "wall-clock, mean over its epochs"),
        Column("parameters", WHOLE, "", "of the student"),
        Column("started", TIME, "UTC", "when it started"),
        Column("ended", TIME, "UTC", "when it ended"),
        Column("device", TEXT, "", "where it ran"),
        Column("reason", TEXT, "", "why it was stopped or failed"),
    ]
    rows: list[list[Cell]] = [
        [
            t.number,
            t.state,
            t.role,
            t.accuracy,
            t.epochs,
            t.seconds_per_epoch,
            t.parameters,
            _ms(t.started),
            _ms(t.ended),
            t.device,
            t.reason,
        ]
        for t in run.trials
    ]
    for path, dimension in run.space.items():
        columns.append(Column(path, _type(dimension), run.units.get(path, ""), f"drawn from {dimension}"))
        for row, trial in zip(rows, run.trials, strict=True):
            row.append(_fit(dimension, trial.drawn.get(path)))
    return table(columns, rows)


def epochs(run: RunData) -> pa.Table:
    """One row an epoch of a trial."""
    names = sorted({name for row in run.epochs for name in row.terms})
    columns = [
        Column("trial", WHOLE, "", "number of the trial"),
        Column("epoch", WHOLE, "epochs", "1 is the first"),
        Column("held_out_accuracy", REAL, "%", "averaged weights"),
        Column("held_out_accuracy_raw", REAL, "%", "the weights as they are"),
        Column("seconds", REAL, "s", "wall-clock time of the epoch"),
        Column("lr", REAL, "", "learning rate at the end of the epoch"),
        *(
            Column(f"term/{name}", REAL, "", "raw loss term, mean over the epoch, before its weight")
            for name in names
        ),
    ]
    rows: list[list[Cell]] = [
        [
            r.trial,
            r.epoch,
            r.accuracy,
            r.accuracy_raw,
            r.seconds,
            r.lr,
            *(r.terms.get(name) for name in names),
        ]
        for of in run.curves().values()
        for r in of
    ]
    return table(columns, rows)


def confirmed(run: RunData) -> pa.Table:
    columns = [
        Column("role", TEXT, "", "best, paper, or a control"),
        Column("trial", WHOLE, "", "the trial whose recipe was retrained; empty for controls"),
        Column("seed", WHOLE, "", "seed of the retraining"),
        Column("accuracy", REAL, "%", "last epoch, on the split named beside it"),
        Column("split", TEXT, "", "what the accuracy was measured on"),
        Column("epochs", WHOLE, "epochs", "finished epochs"),
        Column("seconds", REAL, "s", "wall-clock time of the epochs together"),
    ]
    rows: list[list[Cell]] = [
        [r.role, r.trial, r.seed, r.accuracy, r.split, r.epochs, r.seconds] for r in run.confirm
    ]
    return table(columns, rows)


def beyond_accuracy(run: RunData) -> pa.Table:
    """One row an analysed retraining."""
    columns = [
        Column("role", TEXT, "", "best, paper, or a control"),
        Column("seed", WHOLE, "", "seed of the retraining"),
        Column("agreement", REAL, "%", "test images on which student and teacher give the same answer"),
        Column("kl", REAL, "nats", "mean KL divergence of the student from the teacher"),
        Column("calibration_error", REAL, "%", "expected calibration error, 15 bins"),
        Column("calibration_error_scaled", REAL, "%", "the same after temperature scaling"),
        Column("temperature", REAL, "", "the fitted temperature"),
        Column("teacher_accuracy", REAL, "%", "the teacher's, on the same images"),
    ]
    rows: list[list[Cell]] = [
        [row.role, row.seed, *(getattr(analysis, column.name) for column in columns[2:])]
        for of in beyond.measured(run).values()
        for row, analysis in of
    ]
    return table(columns, rows)


def classes(run: RunData) -> pa.Table:
    """One row a class and analysed retraining."""
    columns = [
        Column("role", TEXT, "", "best, paper, or a control"),
        Column("seed", WHOLE, "", "seed of the retraining"),
        Column("class", TEXT, "", "name of the class"),
        Column("accuracy", REAL, "%", "of its test images"),
        Column("teacher_accuracy", REAL, "%", "the teacher's"),
    ]
    rows: list[list[Cell]] = [
        [row.role, row.seed, str(of.name), of.accuracy, of.teacher]
        for group in beyond.measured(run).values()
        for row, analysis in group
        for of in analysis.per_class
    ]
    return table(columns, rows)


def importances(found: Importances | str) -> pa.Table:
    columns = [
        Column("path", TEXT, "", "the field's path in the recipe"),
        Column(
            "importance",
            REAL,
            "points",
            "growth of the forest's mean absolute error when the field is shuffled",
        ),
        Column("low", REAL, "points", "lower end of its 95 % interval"),
        Column("high", REAL, "points", "upper end of its 95 % interval"),
        Column("n", WHOLE, "trials", "finished trials that drew the field"),
    ]
    rows = () if isinstance(found, str) else found.rows
    return table(columns, [[r.path, r.mean, r.low, r.high, r.n] for r in rows])


def rank_correlations(run: RunData) -> pa.Table:
    columns = [
        Column("epoch", WHOLE, "epochs", "the epoch that is compared with the end"),
        Column("rung", pa.bool_(), "", "whether the pruner judged at this epoch"),
        Column("n", WHOLE, "trials", "finished trials"),
        Column("averaged", REAL, "", "Spearman's rho of averaged weights with the final accuracy"),
        Column("averaged_low", REAL, "", "lower end of its 95 % interval"),
        Column("averaged_high", REAL, "", "upper end of its 95 % interval"),
        Column("raw", REAL, "", "rho of the raw weights with the same final accuracy"),
        Column("averaged_best_half", REAL, "", "rho of averaged weights among the better half of the trials"),
    ]
    rows: list[list[Cell]] = []
    for row in stats.rank_correlations(run):
        a, raw, half = row.averaged, _rho(row.raw), _rho(row.best_half)
        rows.append([row.epoch, row.epoch in run.rungs, a.n, a.rho, a.low, a.high, raw, half])
    return table(columns, rows)


def _rho(found: stats.Correlation | None) -> float | None:
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
