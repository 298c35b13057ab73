"""A run's epochs as TensorBoard events: one folder a trial, with what it drew as its hyperparameters."""

from math import isfinite
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from raykd.report.rows.types import EpochRow, RunData, TrialRow

HELD_OUT = "held_out_accuracy"


def write(run: RunData, folder: Path) -> None:
    """Write FOLDER/trial-00007/events...; trials whose epochs are written already are left as they are."""
    curves = run.curves()
    for trial in run.trials:
        rows = curves.get(trial.number, [])
        if rows:
            _trial(trial, rows, folder / f"trial-{trial.number:05d}")


def _trial(trial: TrialRow, rows: list[EpochRow], folder: Path) -> None:
    suffix = f".{len(rows)}-epochs-{trial.state}"
    before = list(folder.glob("events.*")) if folder.exists() else []
    if any(path.name.endswith(suffix) for path in before):
        return
    for path in before:
        path.unlink()
    told = trial.started or 0.0
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for summary in hparams(dict(trial.drawn), {HELD_OUT: 0.0}):
            writer.file_writer.add_summary(summary)
        for row in rows:
            told += row.seconds if isfinite(row.seconds) else 0.0
            values = {HELD_OUT: row.accuracy, f"{HELD_OUT}_raw": row.accuracy_raw, "lr": row.lr}
            values |= {f"term/{name}": value for name, value in row.terms.items()}
            for name, value in values.items():
                writer.add_scalar(name, value, row.epoch, walltime=told)
