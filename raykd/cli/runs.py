"""Verbs of studies and their runs."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from raykd.cli.options import (
    NO_OVERRIDES,
    NO_PATHS,
    Address,
    Data,
    Download,
    Json,
    RunPath,
    Set,
    Storage,
    StudyFile,
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
    download: Download = False,
    address: Address = None,
    enqueue: Annotated[
        list[Path], Option(callback=expand_path, help="A recipe to try after the paper's; may be repeated.")
    ] = NO_PATHS,
    warm_start: Annotated[
        str | None, Option(callback=resolve_path, help="An earlier run of the same method to begin with.")
    ] = None,
) -> None:
    """Run a study: teacher, search, confirmation, report, export.

    Launched again, it goes on where it stopped.
    """
    from raykd.cli.output.progress import show_progress
    from raykd.driver import launch, train_one
    from raykd.store.folder import join_uri
    from raykd.store.run_files import RunFiles
    from raykd.study.search_warnings import list_search_warnings

    recipes = [train_one.read_recipe(path) for path in enqueue]
    parsed = read_study(study, set_).with_enqueued(recipes, warm_start)
    run = join_uri(storage, parsed.name)
    for line in filter(None, (parsed.describe_shortage(), *list_search_warnings(parsed))):
        print(line, file=sys.stderr)
    with show_progress(parsed.to_dict(), run, RunFiles(run).trials()) as on_event, _hint_on_interrupt(run):
        run_files = launch.launch(
            parsed,
            storage=storage,
            address=address,
            data_root=resolve_data_root(data),
            download=download,
            on_event=on_event,
        )
    _report_and_export(run_files, resolve_data_root(data))


@app.command()
def resume(
    run: RunPath,
    trials: Annotated[int | None, Option(help="So many trials in all.", min=1)] = None,
    data: Data = None,
    download: Download = False,
    address: Address = None,
) -> None:
    """Go on with a run after a crash, a kill or Ctrl-C; --trials extends it."""
    from raykd.cli.output.progress import show_progress
    from raykd.driver import launch
    from raykd.store.run_files import RunFiles

    study = launch.read_study(run, trials).to_dict()
    with show_progress(study, run, RunFiles(run).trials()) as on_event, _hint_on_interrupt(run):
        run_files = launch.resume(
            run,
            trials=trials,
            address=address,
            data_root=resolve_data_root(data),
            download=download,
            on_event=on_event,
        )
    _report_and_export(run_files, resolve_data_root(data))


@app.command()
def status(run: RunPath, as_json: Json = False) -> None:
    """Print the status of a run; from any shell, while it runs and after, without Ray."""
    from raykd.cli.output import status
    from raykd.store.run_files import RunFiles
    from raykd.store.status import get_status

    content = get_status(RunFiles.open(run))
    print(json.dumps(content, indent=1)) if as_json else status.print_status(content)


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
) -> None:
    """Write one page with all plots and tables of a run, or compare several.

    Works while they run, without Ray.
    """
    from raykd.report.write import write_report

    print(f"report: {write_report(runs, out)}")


@app.command()
def confirm(run: RunPath, data: Data = None, download: Download = False, address: Address = None) -> None:
    """Retrain leaders, the paper's point and controls on the full training set; open the test set once."""
    resume(run, None, data, download, address)


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, Argument(callback=resolve_path, help="The folder to write.")],
    trial: Annotated[int | None, Option(help="The trial's number; default: the best.", min=0)] = None,
    data: Data = None,
) -> None:
    """Hand a student on: recipe, weights, programs for torch and ONNX, preprocessing, a card.

    Without --trial: the best trial's settings as the confirmation retrained them, else the best trial.
    """
    from raykd.cli.output import tables
    from raykd.export.export import export as write_export
    from raykd.store.run_files import RunFiles

    tables.print_export(str(out), write_export(RunFiles.open(run), out, trial, resolve_data_root(data)))


@contextmanager
def _hint_on_interrupt(run: str) -> Any:
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; nothing is lost. Go on with: raykd resume {run}", file=sys.stderr)
        sys.exit(130)


def _report_and_export(run_files: Any, root: Path) -> None:
    """The end of every run: the report and the exported student."""
    from raykd.cli.output import tables
    from raykd.export.export import export as write_export
    from raykd.report.write import write_report
    from raykd.store import file_names
    from raykd.store.status import get_status

    print(f"report: {write_report([run_files.folder.uri])}")
    if get_status(run_files)["trials"]["complete"]:
        with (run_files.folder / file_names.EXPORT).staging_dir() as path:
            left_out = write_export(run_files, path, root=root)
        tables.print_export((run_files.folder / file_names.EXPORT).uri, left_out)
    if run_files.state() == "stopped":
        print(f"stopped: {run_files.stop_reason()}", file=sys.stderr)
        sys.exit(1)
