"""Image files: listed by class, and decoded."""

import os
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from torch import Tensor

from raykd.mistakes import BadInput

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")

ByClass = dict[str, list[str]]  # class -> files, sorted


class Unreadable(Exception):
    """An image file is missing or damaged. Says which, and why."""


def listed(base: Path, parts: tuple[str, str]) -> tuple[ByClass, ByClass]:
    """The images of two parts, BASE/PART/CLASS/*.jpg. BadInput when the layout is another one."""
    for part in parts:
        if not (base / part).is_dir():
            layout = f"{base}/{{{','.join(parts)}}}/CLASS/*.jpg"
            raise BadInput([f"data: {base / part}: no such folder. Expected: {layout}"])
    train, test = (_by_class(base / part) for part in parts)
    if odd := sorted(set(train) ^ set(test)):
        raise BadInput([f"data: {base}: class folders differ between {' and '.join(parts)}: {odd[:5]}"])
    return train, test


def _by_class(part: Path) -> ByClass:
    found = {
        folder.name: sorted(_images(str(folder))) for folder in sorted(part.iterdir()) if folder.is_dir()
    }
    if empty := [name for name, files in found.items() if not files] or ([part.name] if not found else []):
        raise BadInput([f"data: {part}: no images for {empty[:5]} (endings: {', '.join(ENDINGS)})"])
    return found


def _images(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:  # it knows a folder from a file without a look at each
        for entry in entries:
            if entry.name.lower().endswith(ENDINGS):
                yield entry.path
            elif entry.is_dir():
                yield from _images(entry.path)


def decoded(file: str) -> Tensor:
    """[3, height, width], uint8."""
    from torchvision.transforms.v2 import functional as T  # here: it takes seconds, and few data sets need it

    try:
        with warnings.catch_warnings(), Image.open(file) as image:
            warnings.simplefilter("ignore")  # about odd metadata, which is not read
            pixels: Tensor = T.pil_to_tensor(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise Unreadable(f"{file}: not a readable image ({reason})") from None
    return pixels
