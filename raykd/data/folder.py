"""Any folder of images: one sub-folder a class, under one folder for training and one for the test."""

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from raykd.data._base import DataSpec, Part, Raw, Triple
from raykd.mistakes import BadInput

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


class Folder(DataSpec):
    """Images are resized (shorter side) and centre-cropped to size x size when read, and kept in memory."""

    name: Literal["folder"] = "folder"
    path: str  # relative to the data root, or absolute
    size: Annotated[int, Field(ge=8)] = 64
    train: str = "train"
    test: str = "val"
    mean: Triple = (0.485, 0.456, 0.406)  # ImageNet's
    std: Triple = (0.229, 0.224, 0.225)

    def read(self, root: Path, download: bool) -> Raw:
        base = root / Path(self.path).expanduser()
        parts = {name: base / name for name in (self.train, self.test)}
        for part in parts.values():
            if not part.is_dir():
                layout = f"{base}/{{{self.train},{self.test}}}/CLASS/*.jpg"
                raise BadInput([f"data: {part}: no such folder. Expected: {layout}"])
        files = {name: _by_class(part) for name, part in parts.items()}
        classes = tuple(files[self.train])
        if odd := sorted(set(classes) ^ set(files[self.test])):
            raise BadInput(
                [f"data: {base}: class folders differ between {self.train} and {self.test}: {odd[:5]}"]
            )
        self._check_memory(base, sum(len(f) for by_class in files.values() for f in by_class.values()))
        train, test = (_part(files[name], self.size) for name in (self.train, self.test))
        return Raw(classes, train, test, self.mean, self.std)

    def _check_memory(self, base: Path, images: int) -> None:
        needed = images * self.size**2 * 3
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there // 2:
            raise BadInput(
                [
                    f"data: {base}: {images:,} images of {self.size} x {self.size} take "
                    f"{needed / 2**30:.1f} GiB of the {there / 2**30:.1f} GiB of memory; take a smaller size"
                ]
            )


def _by_class(part: Path) -> dict[str, list[Path]]:
    folders = sorted(folder for folder in part.iterdir() if folder.is_dir())
    found = {f.name: sorted(p for p in f.rglob("*") if p.suffix.lower() in ENDINGS) for f in folders}
    if empty := [name for name, files in found.items() if not files] or ([part.name] if not found else []):
        raise BadInput([f"data: {part}: no images for {empty[:5]} (endings: {', '.join(sorted(ENDINGS))})"])
    return found


def _part(by_class: dict[str, list[Path]], size: int) -> Part:
    pixels = [_image(file, size) for files in by_class.values() for file in files]
    labels = [label for label, files in enumerate(by_class.values()) for _ in files]
    return Part(torch.stack(pixels), torch.tensor(labels, dtype=torch.int64))


def _image(file: Path, size: int) -> Tensor:
    """[size, size, 3], uint8."""
    from torchvision.transforms.v2 import (
        functional as T,
    )  # here: it takes seconds, and other data sets need it not

    try:
        image = T.pil_to_tensor(Image.open(file).convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken PNG is SyntaxError
        raise BadInput([f"data: {file}: not a readable image ({str(error).splitlines()[0][:120]})"]) from None
    cropped: Tensor = T.center_crop(T.resize(image, [size], antialias=True), [size, size])
    return cropped.permute(1, 2, 0).contiguous()
