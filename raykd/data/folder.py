"""Any folder of images that fits in memory: one sub-folder a class, under one folder for training and one for
the test.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.data._base import Figures, Raw, Triple
from raykd.data.pictures import ByClass, Unreadable, decoded, listed
from raykd.data.views import InMemory, Pixels
from raykd.mistakes import BadInput


class Folder(InMemory):
    """Images are resized (shorter side) and centre-cropped to size x size when read, and kept in memory."""

    name: Literal["folder"] = "folder"
    path: str  # relative to the data root, or absolute
    size: Annotated[int, Field(ge=8)] = 64
    train: str = "train"
    test: str = "val"
    mean: Triple = (0.485, 0.456, 0.406)  # ImageNet's
    std: Triple = (0.229, 0.224, 0.225)

    def known(self) -> Figures | None:
        return None

    def read(self, root: Path, download: bool) -> Raw[Pixels]:
        base = root / Path(self.path).expanduser()
        train, test = listed(base, (self.train, self.test))
        self._check_memory(base, sum(len(files) for part in (train, test) for files in part.values()))
        images, tests = _part(train, self.size), _part(test, self.size)
        return Raw(tuple(train), self.size, images, tests, self.mean, self.std)

    def _check_memory(self, base: Path, images: int) -> None:
        needed = images * self.size**2 * 3
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there // 2:
            raise BadInput(
                [
                    f"data: {base}: {images:,} images of {self.size} x {self.size} take "
                    f"{needed / 2**30:.1f} GiB of the {there / 2**30:.1f} GiB of memory; take a smaller "
                    f"size, or name: imagenet, which streams such folders"
                ]
            )


def _part(by_class: ByClass, size: int) -> Pixels:
    pixels = [_image(file, size) for files in by_class.values() for file in files]
    labels = [label for label, files in enumerate(by_class.values()) for _ in files]
    return Pixels(torch.stack(pixels), torch.tensor(labels, dtype=torch.int64))


def _image(file: str, size: int) -> Tensor:
    """[size, size, 3], uint8."""
    from torchvision.transforms.v2 import functional as T  # here: it takes seconds, and few data sets need it

    try:
        image = decoded(file)
    except Unreadable as error:
        raise BadInput([f"data: {error}"]) from None
    cropped: Tensor = T.center_crop(T.resize(image, [size], antialias=True), [size, size])
    return cropped.permute(1, 2, 0).contiguous()
