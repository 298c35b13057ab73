"""`raykd report RUN [RUN ...]`: one run's page, or one page that compares several."""

from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path

from raykd import report as pages
from raykd.ledger import Ledger
from raykd.ledger.folder import Folder, joined
from raykd.report.collect import collect


def report(runs: Sequence[str], out: Path | None = None) -> str:
    """The path or URI of the written page. BadInput when there is no run at one of the places.

    Default places: RUN/report; of several runs comparison/ in the folder that holds them all.
    """
    ledgers = list({ledger.folder.uri: ledger for ledger in map(Ledger.open, runs)}.values())
    alone = len(ledgers) == 1
    folder = Folder(str(out)) if out else ledgers[0].folder / "report" if alone else _beside(ledgers)
    with folder.filled() as path:
        found = [collect(ledger) for ledger in ledgers]
        page = pages.write(found[0], path) if alone else pages.compare(found, path)
    return joined(folder.uri, page.name)


def _beside(ledgers: Sequence[Ledger]) -> Folder:
    """comparison/ in the runs' own storage; of several storages, in the folder or bucket that holds them."""
    uris = [ledger.storage.uri for ledger in ledgers]
    if len(set(uris)) == 1:
        return ledgers[0].storage / "comparison"
    if any("://" in uri for uri in uris):
        return Folder("comparison")
    return Folder(commonpath(uris)) / "comparison"
