"""Hugging Face's layout of images in Parquet files, as the package `datasets` writes them.

BASE/[FOLDER/]PART-00000-of-00005.parquet ..., BASE/PART/0000.parquet ... or BASE/PART.parquet
    image (or img)                         struct<bytes, path>: an image file as it is, and what it was called
    label (or fine_label, coarse_label)    an integer
    and in the schema's metadata, "huggingface": the features of the columns as JSON, with the classes' names
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
from numpy.typing import NDArray

from raykd.errors import UserError, first_line, mask_passwords, suggest_nearest
from raykd.paths import open_filesystem

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label", "coarse_label")  # CIFAR-100 has the last two
IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
FILE_NAME = re.compile(r"(.+?)(?:-\d{5}-of-(\d{5}).*)?\.parquet", re.DOTALL)


def make_metadata(classes: tuple[str, ...], **features: Any) -> dict[str, str]:
    """Returns a schema's metadata: the classes of `label`, and the features of other columns."""
    label = {"names": list(classes), "_type": "ClassLabel"}
    return {"huggingface": json.dumps({"info": {"features": {**features, "label": label}}})}


def get_class_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Returns the names of the classes of a column; None where the schema's metadata do not tell."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return None


@contextmanager
def refuse_unreadable(path: str, what: str) -> Iterator[None]:
    """Turns errors of pyarrow into a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError([f"data: {mask_passwords(path)}: {what} ({first_line(error)})"]) from None


def is_utf8(base: str) -> bool:
    """Returns whether a path is UTF-8, as those of Parquet files must be."""
    return not any("\udc80" <= character <= "\udcff" for character in base)


def list_parts(base: str) -> dict[str, list[str]]:
    """Returns the files of each part, relative to BASE and sorted; none where no such files lie.

    Raises:
        UserError: The place cannot be read, two folders hold the same part, or files of one are missing.
    """
    if not is_utf8(base):
        return {}
    folders: dict[str, dict[str, list[str]]] = {}  # part -> folder -> files
    num_expected: dict[tuple[str, str], int] = {}
    for file in _list_files(base):
        folder, name = str(PurePosixPath(file).parent), PurePosixPath(file).name
        match = FILE_NAME.fullmatch(name)
        part = match[1] if match and not match[1].isdecimal() else folder
        folders.setdefault(part, {}).setdefault(folder, []).append(file)
        if match and match[2]:
            num_expected[part, folder] = int(match[2])
    for part, files in folders.items():
        if len(files) > 1:
            raise UserError(
                [f"data: {mask_passwords(base)}: {part} lies in {sorted(files)}: name one folder's path"]
            )
    parts = {
        part: sorted(file for files in by_folder.values() for file in files)
        for part, by_folder in folders.items()
    }
    for (part, folder), count in num_expected.items():
        if len(parts[part]) != count:
            problem = f"holds {len(parts[part])} of the {count} files of {part}"
            raise UserError([f"data: {mask_passwords(base)}/{folder}: {problem}"])
    return dict(sorted(parts.items()))


def _list_files(base: str) -> list[str]:
    """Parquet files in a folder and in those right below it, relative to it."""
    storage, root = open_filesystem(base, "data: ")

    def list_entries(folder: str) -> Any:
        with refuse_unreadable(folder, "cannot be read"):
            try:
                return storage.get_file_info(pyarrow.fs.FileSelector(folder, allow_not_found=True))
            except NotADirectoryError:
                return []

    entries = list_entries(root)
    folders = [
        e.path for e in entries if e.type == pyarrow.fs.FileType.Directory and e.base_name[0] not in "._"
    ]
    entries += [entry for folder in folders for entry in list_entries(folder)]
    files = [
        e for e in entries if e.is_file and e.base_name.endswith(".parquet") and e.base_name[0] not in "._"
    ]
    return [str(PurePosixPath(entry.path).relative_to(PurePosixPath(root))) for entry in files]


def choose_columns(schema: pa.Schema, label: str | None, path: str) -> tuple[str, str]:
    """Returns the columns of images and of labels: this one or the usual ones. UserError without."""
    names, there_are = schema.names, f"There are: {', '.join(schema.names)}"
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    fields = schema.field(image).flatten() if image else []
    if not image or not {f"{image}.bytes", f"{image}.path"} <= {field.name for field in fields}:
        expected = " or ".join(f"{name}: struct<bytes, path>" for name in IMAGE_COLUMNS)
        raise UserError([f"data: {path}: no column of images ({expected}). {there_are}"])
    if label is not None and label not in names:
        hint = suggest_nearest(label, names) or f" {there_are}"
        raise UserError([f"data: {path}: data/label = {label}: no such column.{hint}"])
    label = label or next((name for name in LABEL_COLUMNS if name in names), None)
    if label is None:
        usual = ", ".join(LABEL_COLUMNS)
        raise UserError([f"data: {path}: no column of labels ({usual}); data/label names one. {there_are}"])
    if not pa.types.is_integer(schema.field(label).type):
        problem = f"{label} is of type {schema.field(label).type}, expected integers"
        raise UserError([f"data: {path}: {problem}; data/label names another column"])
    return image, label


def check_labels(column: pa.ChunkedArray, path: str) -> NDArray[np.int64]:
    """Returns labels. UserError where an image has none: null, or -1 as Hugging Face writes it."""
    labels = np.array(column.cast(pa.int64()).fill_null(-1).to_numpy())
    if (labels < 0).any():
        row = int((labels < 0).argmax())
        raise UserError([f"data: {path}: the image in row {row} has no label; name a part that is labelled"])
    return labels
