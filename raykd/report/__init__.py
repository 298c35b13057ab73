"""Rows -> figures, tables, and one HTML page that opens from disk. Needs no Ray, no torch and no GPU."""

from pathlib import Path

from raykd.report.data import ConfirmRow, EpochRow, PublishedRow, RunData, TrialRow

__all__ = ["ConfirmRow", "EpochRow", "PublishedRow", "RunData", "TrialRow", "write"]


def write(run: RunData, out: Path) -> Path:
    """Write OUT/index.html, OUT/figures (PNG, SVG) and OUT/tables (Parquet, CSV); return the page's path."""
    from raykd.report import page, tables  # heavy: loaded only where a report is written
    from raykd.report.importances import importances

    found = importances(run)
    every = tables.every(run, found)
    tables.write(every, out / "tables")
    return page.write(run, found, every, out)
