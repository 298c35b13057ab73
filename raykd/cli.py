"""The verbs. Parses, calls, prints; imports what a verb needs when it is called."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

app = typer.Typer(
    help="Hyperparameter studies of contrastive knowledge distillation on Ray.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

NOTHING: list[str] = []
NO_PATHS: list[Path] = []
Set = Annotated[list[str], Option("--set", metavar="PATH=VALUE", help="Override a setting; may be repeated.")]
Data = Annotated[
    Path | None, Option("--data", help="Where data sets lie. Default: $RAYKD_DATA or ~/.cache/raykd/data.")
]
Download = Annotated[bool, Option("--download", help="Fetch a missing data set from its official place.")]
Storage = Annotated[str, Option("--storage", help="Folder or URI that holds runs and trained teachers.")]
Address = Annotated[
    str | None, Option("--address", help="Of a Ray cluster; default: one of this machine's own.")
]
Json = Annotated[bool, Option("--json", help="Print JSON.")]
RunPath = Annotated[str, Argument(metavar="RUN", help="Folder or URI of a run.")]
StudyFile = Annotated[Path, Argument(metavar="STUDY", help="A study file (YAML).")]


def main() -> None:
    """Exit 0 done, 1 failed work, 2 bad input (one line a mistake on stderr), 130 interrupted."""
    from raykd.mistakes import BadInput

    try:
        app()
    except BadInput as error:
        print("\n".join(error.lines), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"raykd: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("raykd: interrupted", file=sys.stderr)
        sys.exit(130)


@app.command()
def plan(
    study: StudyFile,
    set_: Set = NOTHING,
    storage: Storage = "runs",
    data: Data = None,
    download: Download = False,
    probe: Annotated[
        str | None, Option(metavar="ADDRESS", help="Measure on a device of this Ray cluster, not here.")
    ] = None,
    images_per_second: Annotated[
        float | None, Option(help="Of one worker, each rotated view counted; nothing is measured.", min=1e-9)
    ] = None,
    price: Annotated[float | None, Option(help="Dollars of one device hour.", min=0)] = None,
    as_json: Json = False,
) -> None:
    """Show what a study will search and cost, from a short timing probe. Nothing is trained."""
    from dataclasses import asdict

    from raykd import show
    from raykd.plan import Asked, planned

    asked = Asked(_root(data), download, storage, images_per_second, probe, price)
    made = planned(_study(study, set_), asked)
    print(json.dumps(asdict(made), indent=1)) if as_json else show.plan(made)


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
    from raykd import driver, show
    from raykd import train as single
    from raykd.ledger.folder import joined

    recipes = [single.read(path) for path in first]
    read = _study(study, set_).begun_with(recipes, warm)
    run = joined(storage, read.name)
    with show.progress(read.plain(), run) as tell, _resumable(run):
        ledger = driver.launch(
            read, storage=storage, address=address, data_root=_root(data), download=download, tell=tell
        )
    _close(ledger, _root(data))


@app.command()
def resume(
    run: RunPath,
    trials: Annotated[int | None, Option(help="So many trials in all.", min=1)] = None,
    data: Data = None,
    download: Download = False,
    address: Address = None,
) -> None:
    """Go on with a run after a crash, a kill or Ctrl-C; --trials extends it."""
    from raykd import driver, show
    from raykd.ledger import Ledger
    from raykd.study import Study

    read = Study.parse(Ledger.open(run).study(), f"{run}/study.yaml")
    with show.progress(read.plain(), run) as tell, _resumable(run):
        ledger = driver.resume(
            run, trials=trials, address=address, data_root=_root(data), download=download, tell=tell
        )
    _close(ledger, _root(data))


@app.command()
def status(run: RunPath, as_json: Json = False) -> None:
    """Say where a run stands; from any shell, while it runs and after, without Ray."""
    from raykd import show
    from raykd.ledger import Ledger
    from raykd.standing import standing

    stands = standing(Ledger.open(run))
    print(json.dumps(stands, indent=1)) if as_json else show.standing(stands)


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
    from raykd.report.verb import report as write

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
    from raykd import show
    from raykd.export import export as write
    from raykd.ledger import Ledger

    show.exported(str(out), write(Ledger.open(run), out, trial, _root(data)))


@app.command()
def transfer(
    student: Annotated[str, Argument(metavar="STUDENT", help="An export, or a trial's folder.")],
    to: Annotated[
        str, Option("--to", metavar="DATASET", help="A data set, or a folder of images under the data root.")
    ],
    seeds: Annotated[int | None, Option(help="So many probes of each net; default: 3.", min=1)] = None,
    teacher: Annotated[
        str | None, Option(help="The teacher's weights, where they lie elsewhere now.")
    ] = None,
    set_: Set = NOTHING,
    data: Data = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Probe a student's frozen features on another data set, beside its teacher's and an untrained net's."""
    from raykd import show
    from raykd import transfer as probing
    from raykd.ledger import Folder
    from raykd.student import load

    folder, root = Folder(student), _root(data)
    read = load(folder)
    asked = tuple([*set_, f"seeds={seeds}"] if seeds else set_)
    settings = probing.probe_of(to, read, root, asked)
    theirs = probing.teacher_of(folder, read, teacher, root)
    result = probing.transfer(read, theirs, settings, root, download, show.probed)
    probing.keep(folder, to, result)
    print(json.dumps(result, indent=1)) if as_json else show.transferred(to, result, folder)


@app.command()
def train(
    recipe: Annotated[Path, Argument(metavar="RECIPE", help="A recipe (YAML), as `export` writes it.")],
    out: Annotated[
        Path | None, Option(help="The folder to write; default: STORAGE/train-<recipe's hash>.")
    ] = None,
    workers: Annotated[
        int | None, Option(help="Train through Ray Train with so many workers.", min=1)
    ] = None,
    test: Annotated[bool, Option("--test", help="Open the test set after the last epoch.")] = False,
    set_: Set = NOTHING,
    storage: Storage = "runs",
    data: Data = None,
    download: Download = False,
    address: Address = None,
) -> None:
    """Train one recipe, without Ray unless --workers is given; again: it goes on from its checkpoint."""
    from raykd import show
    from raykd import train as single

    checked = single.read(recipe, tuple(set_))
    settings = single.Settings(storage, out, workers, test, _root(data), download, address)
    row, folder = single.train(checked, settings, show.epoch)
    show.trained(row, folder)


@app.command()
def methods(
    name: Annotated[str | None, Argument(help="One method, in full.")] = None, as_json: Json = False
) -> None:
    """List the methods, or explain one: its source, formula, fields and ranges."""
    from raykd import show
    from raykd.catalogue import catalogue, entry

    found: Any = catalogue() if name is None else entry(name)
    print(json.dumps(found, indent=1)) if as_json else show.methods(found)


data_app = typer.Typer(help="Data sets: what there is, and shards of large ones.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """List the data sets that a recipe can name."""
    from raykd import show
    from raykd.data import inventory

    found = inventory.known()
    print(json.dumps(found, indent=1)) if as_json else show.table(found)


@data_app.command("show")
def data_show(
    path: Annotated[str, Argument(help="A folder of images, or a folder or URI of shards.")],
    as_json: Json = False,
) -> None:
    """Show what lies in a folder of images or of shards: its parts, classes and images."""
    from raykd import show
    from raykd.data import inventory

    found = inventory.contents(path)
    print(json.dumps(found, indent=1)) if as_json else show.table(found)


@data_app.command("shard")
def data_shard(
    source: Annotated[Path, Argument(help="A folder of images, SOURCE/PART/CLASS/*.jpg.")],
    out: Annotated[str, Argument(help="The folder or URI to write.")],
) -> None:
    """Write a folder of images as a few large Parquet files, which `name: imagenet` reads in its place."""
    from raykd.data import shards

    for part, written, of in shards.write(source, out):
        print(f"{out}/{part}: {written:,} of {of:,} images")


@app.command()
def doctor(
    study: Annotated[Path | None, Argument(metavar="[STUDY]", help="A study file that should run.")] = None,
    set_: Set = NOTHING,
    address: Address = None,
    storage: Storage = "runs",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Ask every node of a cluster what would keep a study from running; exit 1 if something does."""
    from dataclasses import asdict

    from raykd import show
    from raykd.doctor import examine

    found = examine(address, storage, _root(data), None if study is None else _study(study, set_))
    plain = asdict(found) | {"can_run": found.can_run()}
    print(json.dumps(plain, indent=1)) if as_json else show.health(found)
    if not found.can_run():
        sys.exit(1)


@contextmanager
def _resumable(run: str) -> Any:
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; nothing is lost. Go on with: raykd resume {run}", file=sys.stderr)
        sys.exit(130)


def _study(path: Path, overrides: list[str]) -> Any:
    from raykd.study import Study

    return Study.read(path, tuple(overrides))


def _root(given: Path | None) -> Path:
    from raykd.data import default_root

    return given if given is not None else default_root()


def _close(ledger: Any, root: Path) -> None:
    """What every finished run ends in: the report and the exported student."""
    from raykd import show
    from raykd.export import export as write
    from raykd.report.verb import report as written
    from raykd.standing import standing

    print(f"report: {written([ledger.folder.uri])}")
    if standing(ledger)["trials"]["complete"]:
        with (ledger.folder / "export").filled() as path:
            left_out = write(ledger, path, root=root)
        show.exported((ledger.folder / "export").uri, left_out)
    if ledger.state() == "stopped":
        print(f"stopped: {ledger.why()}", file=sys.stderr)
        sys.exit(1)
