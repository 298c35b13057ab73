"""STL-10 (Coates, Ng and Lee 2011): 5,000 + 8,000 labelled photographs of 96 x 96 in 10 classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from raykd.data._base import DatasetInfo, RawDataset
from raykd.data.in_memory import InMemorySpec, Pixels
from raykd.errors import UserError

SIDE = 96
FOLDER = "stl10_binary"
FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")


class STL10(InMemorySpec):
    """Its labelled part; the unlabelled images are not read. `size`: what the images are resized to."""

    name: Literal["stl10"] = "stl10"
    size: Annotated[int, Field(ge=8)] = SIDE

    def published_info(self) -> DatasetInfo | None:
        """Returns the official numbers."""
        return DatasetInfo(10, self.size, 5000)

    def read(self, root: Path, download: bool) -> RawDataset[Pixels]:
        """Returns the labelled images, resized; fetched if they are not there and `download`."""
        base = root / FOLDER
        if missing := [base / name for name in FILES if not (base / name).is_file()]:
            if not download:
                raise UserError(
                    [
                        f"data: {missing[0]}: no such file. Expected: {base}/{{{','.join(FILES)}}}, as the "
                        f"official archive has them; --download fetches it (2.6 GB)"
                    ]
                )
            _download(root)
        classes = tuple((base / "class_names.txt").read_text().split())
        train, test = (_read_part(base, part, len(classes), self.size) for part in ("train", "test"))
        # of the training images
        mean, std = (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)
        return RawDataset(classes, self.size, train, test, mean, std)


def _download(root: Path) -> None:
    from torchvision.datasets import STL10 as Official  # here: it takes seconds

    try:
        Official(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise UserError([f"data: STL-10 could not be fetched into {root} ({error})"]) from None


def _read_part(base: Path, part: str, classes: int, size: int) -> Pixels:
    images, labels = (np.fromfile(base / f"{part}_{kind}.bin", np.uint8) for kind in "Xy")
    if len(images) != len(labels) * 3 * SIDE**2 or not len(labels):
        raise UserError(
            [
                f"data: {base / part}_X.bin: damaged ({len(images):,} bytes; {len(labels):,} labels call for "
                f"{len(labels) * 3 * SIDE**2:,}); fetch it anew"
            ]
        )
    if labels.min() < 1 or labels.max() > classes:
        raise UserError([f"data: {base / part}_y.bin: damaged (labels should be 1 to {classes})"])
    columns = torch.from_numpy(images).view(-1, 3, SIDE, SIDE)  # an image is written column by column
    resized = torch.cat(list(_resize(columns.transpose(2, 3), size)))
    return Pixels(resized, torch.from_numpy(labels.astype(np.int64)) - 1)


def _resize(images: Tensor, size: int) -> Iterator[Tensor]:
    """Yields images [n, 3, 96, 96] as [n, size, size, 3], uint8, a thousand at a time."""
    from torchvision.transforms.v2 import functional as T  # here: it takes seconds

    for chunk in torch.split(images, 1000):
        yield T.resize(chunk, [size, size], antialias=True).permute(0, 2, 3, 1).contiguous()
