"""The report of 1,000 trials: seconds to write it, its size, and seconds until Chromium has laid it out.

    python tests/benchmarks/report.py [TRIALS]

The run's files are written by the real search (pruner, journal, ledger); the accuracies are made up.
Baselines in the same run: the report of 30 trials, and an empty page in the same browser.
"""

import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import fake_runs
from support.browser import opened

from raykd.report.write import write_report
from raykd.store.provenance import stamp

TURNS = 3


def measured(trials: int, folder: Path) -> Path:
    ledger = fake_runs.write(fake_runs.study(f"made-{trials}", trials=trials), folder)
    began = time.perf_counter()
    page = Path(write_report([ledger.folder.uri]))
    first = time.perf_counter() - began
    began = time.perf_counter()
    write_report([ledger.folder.uri])
    again = time.perf_counter() - began
    size = page.stat().st_size / 1e6
    print(f"{trials} trials: written in {first:.1f} s, again in {again:.1f} s, {size:.2f} MB")
    return page


def loaded(page: Path, name: str, folder: Path) -> None:
    """Milliseconds from navigation to the load event, and to the first whole layout: the median of turns."""
    said = sorted(opened(page, folder / f"{name}{turn}")[0]["laidOut"] for turn in range(TURNS))
    print(f"{name}: opened in {said[TURNS // 2] / 1000:.2f} s (turns: {[round(ms) for ms in said]} ms)")


def main(trials: int) -> None:
    told = stamp()
    print(f"{platform.machine()}, {told['hardware']}, commit {told['commit']}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blank = folder / "blank.html"
        blank.write_text("<!doctype html><title>empty</title><body></body>")
        pages = {"30 trials": measured(30, folder), f"{trials} trials": measured(trials, folder)}
        for title, page in ({"an empty page": blank} | pages).items():
            loaded(page, title.replace(" ", "-"), folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
