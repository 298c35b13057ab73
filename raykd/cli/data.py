"""Verbs of data sets."""

import json
from typing import Annotated

import typer
from typer import Argument

from raykd.cli.options import NO_PLUGINS, Json, Plugin, expand_path

app = typer.Typer()


@app.command("list")
def data_list(plugin: Plugin = NO_PLUGINS, as_json: Json = False) -> None:
    """List the data sets that a recipe can name."""
    from raykd.cli.output.text import print_table
    from raykd.data import inventory

    rows = inventory.list_datasets()
    print(json.dumps(rows, indent=1)) if as_json else print_table(rows, prose=("what",))


@app.command("show")
def data_show(
    path: Annotated[
        str, Argument(callback=expand_path, help="A folder of images, or a folder or URI of Parquet files.")
    ],
    as_json: Json = False,
) -> None:
    """Show what lies in a folder of images or of Parquet files: parts, classes, images, files passed over."""
    from raykd.cli.output.text import print_table
    from raykd.data import inventory

    rows = inventory.list_parts(path)
    print(json.dumps(rows, indent=1)) if as_json else print_table(rows)


@app.command("shard")
def data_shard(
    source: Annotated[
        str,
        Argument(
            callback=expand_path,
            help="A folder of images, SOURCE/PART/CLASS/*.jpg, or Hugging Face's Parquet files.",
        ),
    ],
    out: Annotated[str, Argument(callback=expand_path, help="The folder or URI to write.")],
) -> None:
    """Write images as a few large Parquet files in Hugging Face's layout, each image readable alone."""
    from raykd.data import class_folders, inventory, shard_writer

    for row in inventory.list_parts(source):
        if row.get("passed_over"):
            folder = class_folders.to_text(f"{source}/{row['part']}")
            print(f"{folder}: {row['passed_over']:,} files passed over: no image, or in no class folder")
    for part, written, total in shard_writer.write(source, out):
        print(f"{out}/{part}: {written:,} of {total:,} images")
