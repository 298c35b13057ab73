"""Verbs of one student, and of methods."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from raykd.cli.options import NOTHING, Address, Data, Download, Json, Set, Storage, root_of

app = typer.Typer()


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
    from raykd import transfer as probing
    from raykd.cli.output import tables
    from raykd.store.run_files import Folder
    from raykd.training.student import load

    folder, root = Folder(student), root_of(data)
    read = load(folder)
    asked = tuple([*set_, f"seeds={seeds}"] if seeds else set_)
    settings = probing.probe_of(to, read, root, asked)
    theirs = probing.teacher_of(folder, read, teacher, root)
    result = probing.transfer(read, theirs, settings, root, download, tables.probed)
    probing.keep(folder, to, result)
    print(json.dumps(result, indent=1)) if as_json else tables.transferred(to, result, folder)


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
    from raykd.cli.output import tables
    from raykd.driver import train_one as single

    checked = single.read(recipe, tuple(set_))
    settings = single.Settings(storage, out, workers, test, root_of(data), download, address)
    row, folder = single.train(checked, settings, tables.epoch)
    tables.trained(row, folder)


@app.command()
def methods(
    name: Annotated[str | None, Argument(help="One method, in full.")] = None, as_json: Json = False
) -> None:
    """List the methods, or explain one: its source, formula, fields and ranges."""
    from raykd.cli.output import tables
    from raykd.methods._catalogue import catalogue, entry

    found: Any = catalogue() if name is None else entry(name)
    print(json.dumps(found, indent=1)) if as_json else tables.methods(found)
