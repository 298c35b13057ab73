"""Verbs of studies and their runs."""

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from raykd.cli.options import (
    NO_OVERRIDES,
    NO_PATHS,
    NO_PLUGINS,
    NO_TRACKERS,
    Address,
    Data,
    Download,
    Json,
    Plugin,
    RunPath,
    Set,
    Storage,
    StudyFile,
    Track,
    expand_path,
    read_study,
    resolve_data_root,
    resolve_path,
)

app = typer.Typer()


@app.command()
def launch(
    study: StudyFile,
    set_: Set = NO_OVERRIDES,
    storage: Storage = "runs",
    data: Data = None,
    plugin: Plugin = NO_PLUGINS,
    download: Download = False,
    address: Address = None,
    enqueue: Annotated[
        list[Path], Option(callback=expand_path, help="A recipe to try after the paper's; may be repeated.")
    ] = NO_PATHS,
    warm_start: Annotated[
        str | None, Option(callback=resolve_path, help="An earlier run of the same method to begin with.")
    ] = None,
    track: Track = NO_TRACKERS,
) -> None:
    """Run a study: teacher, search, confirmation, report, export.

    Launched again, it goes on where it stopped.
    """
    from raykd.driver import launch, train_one
    from raykd.store.folder import join_uri

    recipes = [train_one.read_recipe(path) for path in enqueue]
    parsed, root = read_study(study, set_).with_enqueued(recipes, warm_start), resolve_data_root(data)
    _print_warnings(parsed)
    work = partial(launch.launch, parsed, storage=storage, address=address, data_root=root, download=download)
    _work(work, parsed, join_uri(storage, parsed.name), track, root)


@app.command()
def resume(
    run: RunPath,
    trials: Annotated[int | None, Option(help="So many trials in all.", min=1)] = None,
    data: Data = None,
    plugin: Plugin = NO_PLUGINS,
    download: Download = False,
    address: Address = None,
    track: Track = NO_TRACKERS,
) -> None:
    """Go on with a run after a crash, a kill or Ctrl-C; --trials extends it (each method's)."""
    from raykd.driver import launch

    root = resolve_data_root(data)
    work = partial(launch.resume, run, trials=trials, address=address, data_root=root, download=download)
    _work(work, launch.read_study(run, trials), run, track, root)


@app.command()
def status(run: RunPath, as_json: Json = False) -> None:
    """Print the status of a run; from any shell, while it runs and after, without Ray."""
    from raykd.cli.output import comparison, status
    from raykd.store.run_files import RunFiles
    from raykd.store.status import get_comparison_status, get_status

    run_files = RunFiles.open_any(run)
    if run_files.list_methods():
        content, print_content = get_comparison_status(run_files), comparison.print_comparison_status
    else:
        content, print_content = get_status(run_files), status.print_status
    print(json.dumps(content, indent=1)) if as_json else print_content(content)


@app.command()
def report(
    runs: Annotated[
        list[str], Argument(metavar="RUN [RUN ...]", callback=resolve_path, help="Folders or URIs of runs.")
    ],
    out: Annotated[
        Path | None,
        Option(
            callback=resolve_path,
            help="Where to write; default: RUN/report, of several runs comparison/ beside them.",
        ),
    ] = None,
    plugin: Plugin = NO_PLUGINS,
) -> None:
    """Write one page with all plots and tables of a run, or compare several.

    Works while they run, without Ray.
    """
    from raykd.report.write import write_report
    from raykd.store.plugin_copies import find_faults
    from raykd.store.run_files import RunFiles

    for run in runs:
        for line in find_faults(RunFiles.open_any(run).folder):
            print(line, file=sys.stderr)
    print(f"report: {write_report(runs, out)}")


@app.command()
def confirm(
    run: RunPath,
    data: Data = None,
    plugin: Plugin = NO_PLUGINS,
    download: Download = False,
    address: Address = None,
) -> None:
    """Retrain leaders, the paper's point and controls on the full training set; open the test set once."""
    resume(run, None, data, plugin, download, address)


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, Argument(callback=resolve_path, help="The folder to write.")],
    trial: Annotated[int | None, Option(help="The trial's number; default: the best.", min=0)] = None,
    int8: Annotated[bool, Option("--int8", help="Also an ONNX program in int8, and what it costs.")] = False,
    data: Data = None,
    plugin: Plugin = NO_PLUGINS,
) -> None:
    """Hand a student on: recipe, weights, programs for torch and ONNX, preprocessing, a card.

    Without --trial: the best trial's settings as the confirmation retrained them, else the best trial.
    """
    from raykd.cli.output import tables
    from raykd.export.export import export as write_export
    from raykd.store.run_files import RunFiles

    tables.print_export(str(out), write_export(RunFiles.open(run), out, trial, resolve_data_root(data), int8))


def _work(work: Callable[..., Any], study: Any, run: str, track: list[Any], root: Path) -> None:
    """Runs a study to its end, its progress on the terminal and the trackers; then page and export."""
    from raykd.cli.output.progress import show_progress

    with _open_tracking(track, study.name, run) as tracking:
        with show_progress(_make_board(study, run)) as on_event, _hint_on_interrupt(run):
            run_files = work(on_event=tracking.follow(on_event))
        _report_and_export(run_files, root)


@contextmanager
def _hint_on_interrupt(run: str) -> Any:
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; nothing is lost. Go on with: raykd resume {run}", file=sys.stderr)
        sys.exit(130)


def _open_tracking(names: list[Any], study: str, run: str) -> Any:
    """What follows a run; nothing without --track. UserError where a package is not installed."""
    from raykd.store.run_files import RunFiles
    from raykd.trackers.track import RunTracking, check_trackers

    check_trackers(names)
    return RunTracking(names, study, RunFiles(run))


def _print_warnings(study: Any) -> None:
    """What a study's search will not do, of a comparison's what several methods' will not, once."""
    from raykd.study.comparison import list_studies
    from raykd.study.search_warnings import list_search_warnings

    studies = list_studies(study)
    lines = [line for one in studies for line in (one.describe_shortage(), *list_search_warnings(one))]
    for line in filter(None, dict.fromkeys(lines)):
        print(line, file=sys.stderr)


def _make_board(study: Any, run: str) -> Any:
    """The board of a study's run, or of a comparison's runs."""
    from raykd.cli.output.comparison import ComparisonBoard
    from raykd.cli.output.progress import ProgressBoard
    from raykd.driver.launch import list_runs
    from raykd.store.run_files import RunFiles
    from raykd.study.comparison import Comparison

    is_comparison = isinstance(study, Comparison)
    boards = {
        one.method: ProgressBoard(
            one.study.to_dict(), run, one.run_files.trials(), f"{one.method}: " if is_comparison else ""
        )
        for one in list_runs(study, RunFiles(run))
    }
    return ComparisonBoard(study.name, run, boards) if is_comparison else next(iter(boards.values()))


def _report_and_export(owner: Any, root: Path) -> None:
    """The end of every run: the report, and the exported student (of a comparison, of each method)."""
    from raykd.report.write import write_report

    print(f"report: {write_report([owner.folder.uri])}")
    for run_files in owner.list_runs():
        _export(run_files, root)
    if owner.state() == "stopped":
        print(f"stopped: {owner.stop_reason()}", file=sys.stderr)
        sys.exit(1)


def _export(run_files: Any, root: Path) -> None:
    from raykd.cli.output import tables
    from raykd.export.export import export as write_export
    from raykd.store import file_names
    from raykd.store.status import rank_trials

    if rank_trials(run_files.trials()):
        with (run_files.folder / file_names.EXPORT).staging_dir() as path:
            left_out = write_export(run_files, path, root=root)
        tables.print_export((run_files.folder / file_names.EXPORT).uri, left_out)
