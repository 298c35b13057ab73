"""Any folder of images that fits in memory: folders for training and for the test, in each one a class."""

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.batch import Triple
from raykd.data._base import DatasetInfo, RawDataset, Std, choose_subset
from raykd.data.class_folders import FilesByClass, list_train_and_test, to_text
from raykd.data.in_memory import InMemorySpec, Pixels
from raykd.data.pictures import UnreadableImage, decode
from raykd.errors import UserError
from raykd.paths import ExpandedPath


class ImageFolder(InMemorySpec):
    """Images are resized (shorter side) and centre-cropped to size x size when read, and kept in memory."""

    name: Literal["folder"] = "folder"
    path: ExpandedPath  # relative to the data root, or absolute
    size: Annotated[int, Field(ge=8)] = 64
    train: str = "train"
    test: str = "val"
    mean: Triple = (0.485, 0.456, 0.406)  # ImageNet's
    std: Std = (0.229, 0.224, 0.225)

    def published_info(self) -> DatasetInfo | None:
        """Returns None: a folder is known by its files alone."""
        return None

    def read(self, root: Path, download: bool) -> RawDataset[Pixels]:
        """Returns the images of both folders, decoded; of the training images those that are used."""
        base = root / self.path
        return self.decode_files(base, *list_train_and_test(base, (self.train, self.test)))

    def decode_files(
        self, base: Path, train_files: FilesByClass, test_files: FilesByClass
    ) -> RawDataset[Pixels]:
        """Returns the images of these files; of the training images, only those that are used.

        Raises:
            UserError: They would take too much memory, or one cannot be read.
        """
        train, test = _label_files(train_files), _label_files(test_files)
        used = [
            train[position] for position in choose_subset(self, torch.tensor([label for _, label in train]))
        ]
        self.check_memory(base, len(used), len(test))
        return RawDataset(
            tuple(train_files),
            self.size,
            self._make_pixels(used),
            self._make_pixels(test),
            self.mean,
            self.std,
        )

    def count_bytes(self, used: int, tests: int) -> int:
        """Returns the bytes that so many images take at most: as they are, and the used ones also padded."""
        padded = (self.size + 2 * self.padding) ** 2
        return 3 * ((used + tests) * self.size**2 + used * padded)

    def check_memory(self, base: Path, used: int, tests: int) -> None:
        """Raises UserError when the images would take more than half of this machine's memory."""
        needed = self.count_bytes(used, tests)
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > installed // 2:
            raise UserError(
                [
                    f"data: {base}: {used + tests:,} images of {self.size} x {self.size} take "
                    f"{needed / 2**30:.1f} GiB of the {installed / 2**30:.1f} GiB of memory; take a smaller "
                    f"size or fewer images, or name: imagenet, which streams such folders"
                ]
            )

    def _make_pixels(self, images: list[tuple[str, int]]) -> Pixels:
        pixels = torch.empty(len(images), self.size, self.size, 3, dtype=torch.uint8)
        for place, (file, _) in enumerate(images):
            pixels[place] = _read_image(file, self.size)
        return Pixels(pixels, torch.tensor([label for _, label in images], dtype=torch.int64))


def _label_files(by_class: FilesByClass) -> list[tuple[str, int]]:
    """Returns (file, label) of every image."""
    return [(file, label) for label, files in enumerate(by_class.values()) for file in files]


def _read_image(file: str, size: int) -> Tensor:
    """Returns an image resized and centre-cropped, [size, size, 3], uint8."""
    from torchvision.transforms.v2 import functional as T  # here: it takes seconds, and few data sets need it

    try:
        image = decode(Path(file).read_bytes())
    except (OSError, UnreadableImage) as error:
        raise UserError([f"data: {to_text(file)}: {error}"]) from None
    cropped: Tensor = T.center_crop(T.resize(image, [size], antialias=True), [size, size])
    return cropped.permute(1, 2, 0)
