"""Verbs of one student, and of methods."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from raykd.cli.options import (
    NO_OVERRIDES,
    NO_PLUGINS,
    Address,
    Data,
    Download,
    Json,
    Plugin,
    Set,
    Storage,
    expand_path,
    find_recipe,
    resolve_data_root,
    resolve_path,
)

app = typer.Typer()


@app.command()
def transfer(
    student: Annotated[
        str, Argument(metavar="STUDENT", callback=resolve_path, help="An export, or a trial's folder.")
    ],
    to: Annotated[
        str,
        Option(
            "--to",
            metavar="DATASET",
            callback=expand_path,
            help="A data set, or a folder of images under the data root.",
        ),
    ],
    seeds: Annotated[int | None, Option(help="So many probes of each net; default: 3.", min=1)] = None,
    teacher: Annotated[
        str | None,
        Option(callback=resolve_path, help="The teacher's weights, where they lie elsewhere now."),
    ] = None,
    set_: Set = NO_OVERRIDES,
    data: Data = None,
    plugin: Plugin = NO_PLUGINS,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Probe a student's frozen features on another data set, beside its teacher's and an untrained net's."""
    from raykd.cli.output import tables
    from raykd.store.folder import Folder
    from raykd.training.student import load
    from raykd.transfer import transfer as linear_probe

    folder, root = Folder(student), resolve_data_root(data)
    loaded = load(folder)
    overrides = tuple([*set_, f"seeds={seeds}"] if seeds else set_)
    settings = linear_probe.make_probe(to, loaded, root, overrides)
    teacher_net = linear_probe.load_teacher(folder, loaded, teacher)
    result = linear_probe.transfer(loaded, teacher_net, settings, root, download, tables.print_probe)
    linear_probe.write_result(folder, to, result)
    print(json.dumps(result, indent=1)) if as_json else tables.print_transfer(to, result, folder)


@app.command()
def train(
    recipe: Annotated[
        Path,
        Argument(
            metavar="RECIPE",
            callback=find_recipe,
            help="A recipe (YAML), as `export` writes it, or a name of `raykd studies`.",
        ),
    ],
    out: Annotated[
        Path | None,
        Option(callback=resolve_path, help="The folder to write; default: STORAGE/train-<recipe's hash>."),
    ] = None,
    workers: Annotated[
        int | None, Option(help="Train through Ray Train with so many workers.", min=1)
    ] = None,
    test: Annotated[bool, Option("--test", help="Open the test set after the last epoch.")] = False,
    set_: Set = NO_OVERRIDES,
    storage: Storage = "runs",
    data: Data = None,
    plugin: Plugin = NO_PLUGINS,
    download: Download = False,
    address: Address = None,
) -> None:
    """Train one recipe, without Ray unless --workers is given.

    Again, it goes on from its checkpoint; one that is done is not trained again.
    """
    from raykd.cli.output import tables
    from raykd.driver import train_one
    from raykd.training.nonfinite import NonFiniteLoss

    parsed = train_one.read_recipe(recipe, tuple(set_))
    options = train_one.TrainOptions(storage, out, workers, test, resolve_data_root(data), download, address)
    try:
        row, folder, was_done = train_one.train(parsed, options, tables.print_epoch)
    except NonFiniteLoss as error:
        print(f"raykd: {error}. Try a lower learning rate (--set optimizer/lr=...)", file=sys.stderr)
        sys.exit(1)
    tables.print_trained(row, folder, was_done)


@app.command()
def methods(
    name: Annotated[
        str | None, Argument(metavar="[NAME | check NAME]", help="One method, in full, or checked.")
    ] = None,
    checked: Annotated[str | None, Argument(hidden=True)] = None,
    plugin: Plugin = NO_PLUGINS,
    as_json: Json = False,
) -> None:
    """List the methods, explain one (source, formula, fields, ranges), or run the contract on it (check)."""
    from raykd.cli.output import tables
    from raykd.errors import UserError
    from raykd.methods._catalogue import describe, list_methods

    if name == "check" and checked is not None:
        _check_method(checked, as_json)
        return
    if checked is not None or name == "check":
        raise UserError(["raykd methods [NAME | check NAME]: one NAME"])
    entries: Any = list_methods() if name is None else describe(name)
    print(json.dumps(entries, indent=1)) if as_json else tables.print_methods(entries)


def _check_method(name: str, as_json: bool) -> None:
    """Exit 1 when the method breaks a promise of the contract."""
    from raykd.cli.output import tables
    from raykd.contract.contract import check_method

    results = check_method(name)
    print(json.dumps([result._asdict() for result in results], indent=1)) if as_json else tables.print_checks(
        name, results
    )
    if any(result.fault for result in results):
        sys.exit(1)
