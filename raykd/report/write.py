"""`raykd report RUN [RUN ...]`: one run's page, or one page that compares several."""

from collections.abc import Sequence
from dataclasses import replace
from os.path import commonpath
from pathlib import Path

from raykd.report.rows.collect import collect
from raykd.report.rows.types import RunData
from raykd.store.folder import Folder, joined
from raykd.store.run_files import Ledger


def write_report(runs: Sequence[str], out: Path | None = None) -> str:
    """The path or URI of the written page. BadInput when there is no run at one of the places.

    Default places: RUN/report; of several runs comparison/ in the folder that holds them all.
    """
    ledgers = list({ledger.folder.uri: ledger for ledger in map(Ledger.open, runs)}.values())
    alone = len(ledgers) == 1
    folder = Folder(str(out)) if out else ledgers[0].folder / "report" if alone else _beside(ledgers)
    with folder.filled() as path:
        found = [collect(ledger) for ledger in ledgers]
        page = write_page(found[0], path) if alone else write_comparison(found, path)
    return joined(folder.uri, page.name)


def _beside(ledgers: Sequence[Ledger]) -> Folder:
    """comparison/ in the runs' own storage; of several storages, in the folder or bucket that holds them."""
    uris = [ledger.storage.uri for ledger in ledgers]
    if len(set(uris)) == 1:
        return ledgers[0].storage / "comparison"
    if any("://" in uri for uri in uris):
        return Folder("comparison")
    return Folder(commonpath(uris)) / "comparison"


def write_page(run: RunData, out: Path) -> Path:
    """Write OUT/index.html, OUT/figures (PNG, SVG), OUT/tables (Parquet, CSV) and OUT/tensorboard; return the
    page's path.
    """
    from raykd.report.page import page  # heavy: loaded only where a report is written
    from raykd.report.stats.importances import importances
    from raykd.report.tables import columns, tables, tensorboard

    found = importances(run)
    every = tables.every(run, found)
    columns.write(every, out / "tables")
    tensorboard.write(run, out / "tensorboard")
    return page.write(run, found, every, out)


def write_comparison(runs: Sequence[RunData], out: Path) -> Path:
    """The same of several runs on one page, without TensorBoard's events."""
    from raykd.report.comparison import page

    return page.write(_named_apart(runs), out)


def _named_apart(runs: Sequence[RunData]) -> list[RunData]:
    """Runs of the same name get a number."""
    names = [run.name for run in runs]
    return [
        replace(run, name=f"{run.name} #{names[: i + 1].count(run.name)}")
        if names.count(run.name) > 1
        else run
        for i, run in enumerate(runs)
    ]
