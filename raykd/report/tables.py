"""The tables of a report as Arrow tables with documented columns and units, and as Parquet and CSV files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from raykd.report import stats
from raykd.report.data import RunData
from raykd.report.importances import Importances
from raykd.space import Choice, Dimension, Scalar

Cell = Scalar | None


@dataclass(frozen=True)
class Column:
    """One column: its name, type, unit ("" without one), and what it says."""

    name: str
    type: pa.DataType
    unit: str
    says: str


TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
TIME = pa.timestamp("ms", tz="UTC")


def every(run: RunData, found: Importances | str) -> dict[str, pa.Table]:
    """All tables by name."""
    return {
        "trials": trials(run),
        "epochs": epochs(run),
        "confirmed": confirmed(run),
        "importances": importances(found),
        "rank_correlations": rank_correlations(run),
    }


def write(tables: dict[str, pa.Table], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
        csv.write_csv(table, folder / f"{name}.csv")


def trials(run: RunData) -> pa.Table:
    """One row a trial; each opened path is a column under its own name."""
    columns = [
        Column("trial", WHOLE, "", "number of the trial"),
        Column("state", TEXT, "", "COMPLETE, PRUNED, FAIL, RUNNING or WAITING"),
        Column("role", TEXT, "", "paper: the paper's point; first: given by the study; searched: drawn"),
        Column("held_out_accuracy", REAL, "%", "averaged weights, at the trial's last epoch"),
        Column("epochs_done", WHOLE, "epochs", "finished epochs"),
        Column("started", TIME, "UTC", "when it started"),
        Column("ended", TIME, "UTC", "when it ended"),
        Column("device", TEXT, "", "where it ran"),
        Column("reason", TEXT, "", "why it was stopped or failed"),
    ]
    rows: list[list[Cell]] = [
        [t.number, t.state, t.role, t.accuracy, t.epochs, _ms(t.started), _ms(t.ended), t.device, t.reason]
        for t in run.trials
    ]
    for path, dimension in run.space.items():
        columns.append(Column(path, _type(dimension), run.units.get(path, ""), f"drawn from {dimension}"))
        for row, trial in zip(rows, run.trials, strict=True):
            row.append(_fit(dimension, trial.drawn.get(path)))
    return _table(columns, rows)


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
    return _table(columns, rows)


def confirmed(run: RunData) -> pa.Table:
    columns = [
        Column("role", TEXT, "", "best, paper, or a control"),
        Column("trial", WHOLE, "", "the trial whose recipe was retrained; empty for controls"),
        Column("seed", WHOLE, "", "seed of the retraining"),
        Column("accuracy", REAL, "%", "last epoch, on the split named beside it"),
        Column("split", TEXT, "", "what the accuracy was measured on"),
    ]
    return _table(columns, [[r.role, r.trial, r.seed, r.accuracy, r.split] for r in run.confirm])


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
    return _table(columns, [[r.path, r.mean, r.low, r.high, r.n] for r in rows])


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
    return _table(columns, rows)


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> pa.Table:
    fields = [pa.field(c.name, c.type, metadata={"unit": c.unit, "description": c.says}) for c in columns]
    arrays = [pa.array([row[i] for row in rows], type=c.type) for i, c in enumerate(columns)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


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
