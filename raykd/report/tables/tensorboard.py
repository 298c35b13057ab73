"""A run's epochs as TensorBoard events: one folder a trial, with its params as its hyperparameters."""

from math import isfinite
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from raykd.report.rows.types import EpochRow, RunData, TrialRow


def write_events(run: RunData, folder: Path) -> None:
    """Writes FOLDER/trial-00007/events...; trials whose epochs are written already are left as they are."""
    curves = run.epochs_by_trial()
    for trial in run.trials:
        rows = curves.get(trial.number, [])
        if rows:
            _write_trial(trial, rows, f"held_out_{run.metric}", folder / f"trial-{trial.number:05d}")


def _write_trial(trial: TrialRow, rows: list[EpochRow], tag: str, folder: Path) -> None:
    suffix = f".{len(rows)}-epochs-{trial.state}"
    earlier_files = list(folder.glob("events.*")) if folder.exists() else []
    if any(path.name.endswith(suffix) for path in earlier_files):
        return
    for path in earlier_files:
        path.unlink()
    wall_time = trial.started or 0.0
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for summary in hparams(dict(trial.params), {tag: 0.0}):
            writer.file_writer.add_summary(summary)
        for row in rows:
            wall_time += row.seconds if isfinite(row.seconds) else 0.0
            values = {tag: row.accuracy, f"{tag}_raw": row.accuracy_raw, "lr": row.lr}
            values |= {f"term/{name}": value for name, value in row.terms.items()}
            for name, value in values.items():
                writer.add_scalar(name, value, row.epoch, walltime=wall_time)
