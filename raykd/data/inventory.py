"""What data sets there are, and what lies in a folder of images, of Parquet files or of shards."""

import inspect
from pathlib import Path
from typing import Any

from raykd.data import class_folders, get_spec, names, parquet, parquet_layout, shards
from raykd.errors import UserError, mask_passwords


def list_datasets() -> list[dict[str, Any]]:
    """Returns every data set that a recipe can name; its training images, classes and size where fixed."""
    rows = []
    for name in names():
        spec = get_spec(name)
        path = spec.model_fields.get("path")
        info = None if path is not None and path.is_required() else spec(name=name).published_info()
        rows.append(
            {
                "name": name,
                "what": (inspect.getdoc(inspect.getmodule(spec)) or "").split("\n\n")[0].replace("\n", " "),
                "classes": info and info.classes,
                "images": info and info.images,
                "size": info and info.size,
            }
        )
    return rows


def list_parts(path: str) -> list[dict[str, Any]]:
    """Returns the parts of a folder, of Parquet files or shards: form, classes, images, files passed over.

    Raises:
        UserError: It is none of them, or cannot be read.
    """
    for form, parts, open_part in (
        ("shards", shards.list_parts(path), shards.open_part),
        ("parquet", parquet_layout.list_parts(path), parquet.open_part),
    ):
        if parts:
            opened = {part: open_part(path, part) for part in parts}
            return [
                {"part": part, "form": form, "classes": len(classes), "images": len(images.labels)}
                for part, (classes, images) in opened.items()
            ]
    if "://" in path:
        raise UserError([f"data: {mask_passwords(path)}: no Parquet files of images here"])
    files = class_folders.list_parts(Path(path))
    rows = []
    for part, folder in class_folders.list_part_folders(Path(path)):
        by_class = files.get(part, {})  # nothing: a folder without class folders
        images = sum(map(len, by_class.values()))
        passed_over = class_folders.count_passed_over(folder)
        row = {"part": part, "form": "files", "classes": len(by_class), "images": images}
        rows.append(row | {"passed_over": passed_over})
    return rows
