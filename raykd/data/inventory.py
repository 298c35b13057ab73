"""What data sets there are, whether they are here, and what lies in a folder of images or of shards."""

import inspect
from pathlib import Path
from typing import Any, get_args

from raykd.data import AnyData, pictures, shards
from raykd.errors import BadInput


def known() -> list[dict[str, Any]]:
    """Every data set that a recipe can name, with its training images, classes and size where fixed."""
    rows = []
    for spec in get_args(get_args(AnyData)[0]):
        name = str(get_args(spec.model_fields["name"].annotation)[0])
        path = spec.model_fields.get("path")
        figures = None if path is not None and path.is_required() else spec(name=name).known()
        rows.append(
            {
                "name": name,
                "what": (inspect.getdoc(inspect.getmodule(spec)) or "").split("\n\n")[0].replace("\n", " "),
                "classes": figures and figures.classes,
                "images": figures and figures.images,
                "size": figures and figures.size,
            }
        )
    return rows


def contents(path: str) -> list[dict[str, Any]]:
    """The parts of a folder of images or of shards: form, classes, images. BadInput when it is neither."""
    if found := shards.parts(path):
        opened = {part: shards.opened(path, part) for part in found}
        return [
            {"part": part, "form": "shards", "classes": len(classes), "images": len(images.labels)}
            for part, (classes, images) in opened.items()
        ]
    if "://" in path:
        raise BadInput([f"data: {path}: no shards here, as `raykd data shard` writes them"])
    return [
        {"part": part, "form": "files", "classes": len(by_class), "images": sum(map(len, by_class.values()))}
        for part, by_class in pictures.parts(Path(path)).items()
    ]
