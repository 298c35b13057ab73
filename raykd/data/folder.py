"""Any images that fit in memory: parts for training and for the test, of a folder or in Parquet files."""

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.batch import Triple
from raykd.data._base import DatasetInfo, RawDataset, Std, choose_subset
from raykd.data.encoded import EncodedImages
from raykd.data.image_parts import ImageParts, open_parts
from raykd.data.in_memory import InMemorySpec, Pixels
from raykd.data.pictures import UnreadableImage, decode
from raykd.errors import UserError
from raykd.paths import ExpandedPath


class ImageFolder(InMemorySpec):
    """Images are resized (shorter side) and centre-cropped to size x size when read, and kept in memory.

    PATH/PART/CLASS/*.jpg, Hugging Face's Parquet files, or shards as `raykd data shard` makes them.
    """

    name: Literal["folder"] = "folder"
    path: ExpandedPath  # relative to the data root, absolute, or a URI (of Parquet files)
    size: Annotated[int, Field(ge=8)] = 64
    train: str = "train"
    test: str = "val"
    label: str | None = None  # the column of labels in Parquet files; None: label, fine_label or coarse_label
    mean: Triple = (0.485, 0.456, 0.406)  # ImageNet's
    std: Std = (0.229, 0.224, 0.225)

    def published_info(self) -> DatasetInfo | None:
        """Returns None: a folder is known by its files alone."""
        return None

    def read(self, root: Path, download: bool) -> RawDataset[Pixels]:
        """Returns the images of both parts, decoded; of the training images those that are used."""
        base = self.path if "://" in self.path else str(root / self.path)
        return self.decode_parts(base, open_parts(base, self.train, self.test, self.label))

    def decode_parts(self, base: str, parts: ImageParts) -> RawDataset[Pixels]:
        """Returns the images of these parts; of the training images, only those that are used.

        Raises:
            UserError: They would take too much memory, or one cannot be read.
        """
        train = parts.train.take(torch.from_numpy(choose_subset(self, parts.train.labels)))
        self.check_memory(base, len(train.labels), len(parts.test.labels))
        pixels, test_pixels = (self._decode(part) for part in (train, parts.test))
        return RawDataset(parts.classes, self.size, pixels, test_pixels, self.mean, self.std)

    def count_bytes(self, used: int, tests: int) -> int:
        """Returns the bytes that so many images take at most: as they are, and the used ones also padded."""
        padded = (self.size + 2 * self.padding) ** 2
        return 3 * ((used + tests) * self.size**2 + used * padded)

    def check_memory(self, base: str, used: int, tests: int) -> None:
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

    def _decode(self, images: EncodedImages) -> Pixels:
        pixels = torch.empty(len(images.labels), self.size, self.size, 3, dtype=torch.uint8)
        for position in range(len(pixels)):
            pixels[position] = _read_image(images, position, self.size)
        return Pixels(pixels, images.labels)


def _read_image(images: EncodedImages, position: int, size: int) -> Tensor:
    """Returns an image resized and centre-cropped, [size, size, 3], uint8."""
    from torchvision.transforms.v2 import functional as T  # here: it takes seconds, and few data sets need it

    try:
        image = decode(images.read(position))
    except UnreadableImage as error:
        raise UserError([f"data: {images.name(position)}: {error}"]) from None
    cropped: Tensor = T.center_crop(T.resize(image, [size], antialias=True), [size, size])
    return cropped.permute(1, 2, 0)
