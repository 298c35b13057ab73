"""`raykd report RUN [RUN ...]`: one run's page, or one page that compares several."""

from collections.abc import Sequence
from dataclasses import replace
from os.path import commonpath
from pathlib import Path

from raykd.report.rows.collect import collect
from raykd.report.rows.types import RunData
from raykd.store import file_names
from raykd.store.folder import Folder, join_uri
from raykd.store.run_files import RunFiles

PAGE = "index.html"
GENERATOR = b'<meta name="generator" content="raykd">'  # of page/templates/layout.html: the page is ours


def write_report(runs: Sequence[str], out: Path | None = None) -> str:
    """Writes a page, and returns its path or URI.

    Default places: RUN/report, of a comparison's runs too; of several runs comparison/ in the folder that
    holds them all.

    Raises:
        UserError: There is no run at one of the places, or `out` holds files that are no report.
    """
    owners = list({run_files.folder.uri: run_files for run_files in map(RunFiles.open_any, runs)}.values())
    all_run_files = [run_files for owner in owners for run_files in owner.list_runs()]
    has_own_folder = out is None and len(owners) == 1
    folder = (
        Folder(str(out))
        if out
        else owners[0].folder / file_names.REPORT
        if len(owners) == 1
        else _comparison_folder(owners)
    )
    if not has_own_folder:
        folder.reject_foreign_files(_is_report(folder), "report")
    with folder.staging_dir() as path:
        run_data = [collect(run_files) for run_files in all_run_files]
        page = (
            write_page(run_data[0], path) if all_run_files == owners[:1] else write_comparison(run_data, path)
        )
    return join_uri(folder.uri, page.name)


def _is_report(folder: Folder) -> bool:
    return folder.exists(PAGE) and GENERATOR in folder.read(PAGE)[:1000]


def _comparison_folder(all_run_files: Sequence[RunFiles]) -> Folder:
    """comparison/ in the runs' own storage; of several storages, in the folder or bucket that holds them."""
    uris = [run_files.storage.uri for run_files in all_run_files]
    if len(set(uris)) == 1:
        return all_run_files[0].storage / "comparison"
    if any("://" in uri for uri in uris):
        return Folder("comparison")
    return Folder(commonpath(uris)) / "comparison"


def write_page(run: RunData, out: Path) -> Path:
    """Writes one run's page, and returns its path.

    OUT/index.html, OUT/figures (PNG, SVG), OUT/tables (Parquet, CSV) and OUT/tensorboard.
    """
    from raykd.report.page import page  # heavy: loaded only where a report is written
    from raykd.report.stats.importances import compute_importances
    from raykd.report.tables import columns, tables, tensorboard

    importances = compute_importances(run)
    arrow_tables = tables.build_tables(run, importances)
    columns.write_tables(arrow_tables, out / "tables")
    tensorboard.write_events(run, out / "tensorboard")
    return page.write_html(run, importances, arrow_tables, out)


def write_comparison(runs: Sequence[RunData], out: Path) -> Path:
    """Writes the same of several runs on one page, without TensorBoard's events; returns its path."""
    from raykd.report.comparison import page

    return page.write_html(_number_equal_names(runs), out)


def _number_equal_names(runs: Sequence[RunData]) -> list[RunData]:
    """Runs of the same name get a number."""
    names = [run.name for run in runs]
    return [
        replace(run, name=f"{run.name} #{names[: i + 1].count(run.name)}")
        if names.count(run.name) > 1
        else run
        for i, run in enumerate(runs)
    ]
