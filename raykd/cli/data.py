"""Verbs of data sets."""

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument

from raykd.cli.options import Json

app = typer.Typer()


@app.command("list")
def data_list(as_json: Json = False) -> None:
    """List the data sets that a recipe can name."""
    from raykd.cli.output import tables
    from raykd.data import inventory

    found = inventory.known()
    print(json.dumps(found, indent=1)) if as_json else tables.table(found)


@app.command("show")
def data_show(
    path: Annotated[str, Argument(help="A folder of images, or a folder or URI of shards.")],
    as_json: Json = False,
) -> None:
    """Show what lies in a folder of images or of shards: its parts, classes and images."""
    from raykd.cli.output import tables
    from raykd.data import inventory

    found = inventory.contents(path)
    print(json.dumps(found, indent=1)) if as_json else tables.table(found)


@app.command("shard")
def data_shard(
    source: Annotated[Path, Argument(help="A folder of images, SOURCE/PART/CLASS/*.jpg.")],
    out: Annotated[str, Argument(help="The folder or URI to write.")],
) -> None:
    """Write a folder of images as a few large Parquet files, which `name: imagenet` reads in its place."""
    from raykd.data import shards

    for part, written, of in shards.write(source, out):
        print(f"{out}/{part}: {written:,} of {of:,} images")
