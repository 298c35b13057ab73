"""Verbs of studies and their runs."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from raykd.cli.options import (
    NO_PATHS,
    NOTHING,
    Address,
    Data,
    Download,
    Json,
    RunPath,
    Set,
    Storage,
    StudyFile,
    root_of,
    study_of,
)

app = typer.Typer()


@app.command()
def launch(
    study: StudyFile,
    set_: Set = NOTHING,
    storage: Storage = "runs",
    data: Data = None,
    download: Download = False,
    address: Address = None,
    first: Annotated[
        list[Path], Option(help="A recipe to try after the paper's; may be repeated.")
    ] = NO_PATHS,
    warm: Annotated[str | None, Option(help="An earlier run of the same method to begin with.")] = None,
) -> None:
    """Run a study: teacher, search, confirmation, report, export. Launched again, it goes on where it
    stands.
    """
    from raykd.cli.output.progress import progress
    from raykd.driver import launch
    from raykd.driver import train_one as single
    from raykd.store.folder import joined
    from raykd.store.run_files import Ledger

    recipes = [single.read(path) for path in first]
    read = study_of(study, set_).begun_with(recipes, warm)
    run = joined(storage, read.name)
    with progress(read.plain(), run, Ledger(run).trials()) as tell, _resumable(run):
        ledger = launch.launch(
            read, storage=storage, address=address, data_root=root_of(data), download=download, tell=tell
        )
    _close(ledger, root_of(data))


@app.command()
def resume(
    run: RunPath,
    trials: Annotated[int | None, Option(help="So many trials in all.", min=1)] = None,
    data: Data = None,
    download: Download = False,
    address: Address = None,
) -> None:
    """Go on with a run after a crash, a kill or Ctrl-C; --trials extends it."""
    from raykd.cli.output.progress import progress
    from raykd.driver import launch
    from raykd.store.run_files import Ledger

    study = launch.extended(run, trials).plain()
    with progress(study, run, Ledger(run).trials()) as tell, _resumable(run):
        ledger = launch.resume(
            run, trials=trials, address=address, data_root=root_of(data), download=download, tell=tell
        )
    _close(ledger, root_of(data))


@app.command()
def status(run: RunPath, as_json: Json = False) -> None:
    """Say where a run stands; from any shell, while it runs and after, without Ray."""
    from raykd.cli.output import status
    from raykd.store.run_files import Ledger
    from raykd.store.status import standing

    stands = standing(Ledger.open(run))
    print(json.dumps(stands, indent=1)) if as_json else status.standing(stands)


@app.command()
def report(
    runs: Annotated[list[str], Argument(metavar="RUN [RUN ...]", help="Folders or URIs of runs.")],
    out: Annotated[
        Path | None,
        Option(help="Where to write; default: RUN/report, of several runs comparison/ beside them."),
    ] = None,
) -> None:
    """Write one page with all plots and tables of a run, or compare several; works while they run, without
    Ray.
    """
    from raykd.report.write import write_report as write

    print(f"report: {write(runs, out)}")


@app.command()
def confirm(run: RunPath, data: Data = None, download: Download = False, address: Address = None) -> None:
    """Retrain leaders, the paper's point and controls on the full training set; open the test set once."""
    resume(run, None, data, download, address)


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, Argument(help="The folder to write.")],
    trial: Annotated[int | None, Option(help="The trial's number; default: the best.", min=0)] = None,
    data: Data = None,
) -> None:
    """Hand a student on: recipe, weights, programs for torch and ONNX, preprocessing, a card.

    Without --trial: the best trial's settings as the confirmation retrained them, else the best trial.
    """
    from raykd.cli.output import tables
    from raykd.export import export as write
    from raykd.store.run_files import Ledger

    tables.exported(str(out), write(Ledger.open(run), out, trial, root_of(data)))


@contextmanager
def _resumable(run: str) -> Any:
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; nothing is lost. Go on with: raykd resume {run}", file=sys.stderr)
        sys.exit(130)


def _close(ledger: Any, root: Path) -> None:
    """What every finished run ends in: the report and the exported student."""
    from raykd.cli.output import tables
    from raykd.export import export as write
    from raykd.report.write import write_report as written
    from raykd.store.status import standing

    print(f"report: {written([ledger.folder.uri])}")
    if standing(ledger)["trials"]["complete"]:
        with (ledger.folder / "export").filled() as path:
            left_out = write(ledger, path, root=root)
        tables.exported((ledger.folder / "export").uri, left_out)
    if ledger.state() == "stopped":
        print(f"stopped: {ledger.why()}", file=sys.stderr)
        sys.exit(1)
