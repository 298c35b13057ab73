"""Rows -> figures, tables, and one HTML page that opens from disk. Needs no Ray, no torch and no GPU."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raykd.report.data import Analysis, ConfirmRow, EpochRow, PublishedRow, RunData, TrialRow

__all__ = [
    "Analysis", "ConfirmRow", "EpochRow", "PublishedRow", "RunData", "TrialRow", "compare", "write",
]  # fmt: skip


def write(run: RunData, out: Path) -> Path:
    """Write OUT/index.html, OUT/figures (PNG, SVG), OUT/tables (Parquet, CSV) and OUT/tensorboard; return the
    page's path.
    """
    from raykd.report import arrow, events, page, tables  # heavy: loaded only where a report is written
    from raykd.report.importances import importances

    found = importances(run)
    every = tables.every(run, found)
    arrow.write(every, out / "tables")
    events.write(run, out / "tensorboard")
    return page.write(run, found, every, out)


def compare(runs: Sequence[RunData], out: Path) -> Path:
    """The same of several runs on one page, without TensorBoard's events."""
    from raykd.report import comparison

    return comparison.write(_named_apart(runs), out)


def _named_apart(runs: Sequence[RunData]) -> list[RunData]:
    """Runs of the same name get a number."""
    names = [run.name for run in runs]
    return [
        replace(run, name=f"{run.name} #{names[: i + 1].count(run.name)}")
        if names.count(run.name) > 1
        else run
        for i, run in enumerate(runs)
    ]
