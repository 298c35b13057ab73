"""The report of 1,000 trials: seconds to write it, its size, and seconds until Chromium has laid it out.

    python tests/benchmarks/report.py [TRIALS]

The run's files are written by the real search (pruner, journal, files); the accuracies are made up.
Baselines in the same run: the report of 30 trials, and an empty page in the same browser.
"""

import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import fake_runs
from support.browser import open_page

from raykd.report.write import write_report
from raykd.store.provenance import record_provenance

NUM_REPEATS = 3


def measure_write(trials: int, folder: Path) -> Path:
    run_files = fake_runs.write_run(fake_runs.make_study(f"made-{trials}", trials=trials), folder)
    start = time.perf_counter()
    page = Path(write_report([run_files.folder.uri]))
    first_seconds = time.perf_counter() - start
    start = time.perf_counter()
    write_report([run_files.folder.uri])
    second_seconds = time.perf_counter() - start
    megabytes = page.stat().st_size / 1e6
    print(
        f"{trials} trials: written in {first_seconds:.1f} s, again in {second_seconds:.1f} s, "
        f"{megabytes:.2f} MB"
    )
    return page


def measure_load(page: Path, name: str, folder: Path) -> None:
    """Milliseconds from navigation to the load event, and to the whole layout: the median of repeats."""
    milliseconds = sorted(
        open_page(page, folder / f"{name}{repeat}")[0]["laidOut"] for repeat in range(NUM_REPEATS)
    )
    print(
        f"{name}: opened in {milliseconds[NUM_REPEATS // 2] / 1000:.2f} s "
        f"(repeats: {[round(ms) for ms in milliseconds]} ms)"
    )


def main(trials: int) -> None:
    provenance = record_provenance()
    print(f"{platform.machine()}, {provenance['hardware']}, commit {provenance['commit']}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blank = folder / "blank.html"
        blank.write_text("<!doctype html><title>empty</title><body></body>")
        pages = {"30 trials": measure_write(30, folder), f"{trials} trials": measure_write(trials, folder)}
        for title, page in ({"an empty page": blank} | pages).items():
            measure_load(page, title.replace(" ", "-"), folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
