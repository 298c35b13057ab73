"""Images as they are stored, JPEGs mostly: read one at a time, by position."""

import os
from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raykd.data import pictures
from raykd.data._base import Part

REMOTE_READS = 16  # of remote images at once, in each process


class EncodedImages(Part):
    """Images that are decoded when they are needed."""

    remote: bool  # whether many reads at once are faster than one after another

    @abstractmethod
    def name(self, position: int) -> str:
        """Where an image lies, for messages."""

    @abstractmethod
    def read(self, position: int) -> bytes:
        """An image's bytes. UnreadableImage when they cannot be had."""

    def read_many(self, positions: list[int]) -> list[bytes | None]:
        """The bytes of many images, None for any that could not be had."""
        with ThreadPoolExecutor(REMOTE_READS if self.remote else 1) as pool:
            return list(pool.map(self._read_or_none, positions))

    def _read_or_none(self, position: int) -> bytes | None:
        try:
            return self.read(position)
        except pictures.UnreadableImage:
            return None

    def same_class(self, position: int) -> Iterator[int]:
        """The image, then the others of its class in a fixed order."""
        yield position
        members = (self.labels == self.labels[position]).nonzero().flatten()
        place = int((members == position).nonzero())
        yield from members.roll(-place)[1:].tolist()


@dataclass(frozen=True, eq=False)
class ImageFiles(EncodedImages):
    """Images in files. The names are kept as one tensor, which processes share."""

    names: Tensor  # [images, longest name], uint8: paths, filled up with zeros
    labels: Tensor  # [images], int64
    remote = False

    @classmethod
    def from_classes(cls, by_class: pictures.FilesByClass) -> "ImageFiles":
        names = np.array([os.fsencode(file) for files in by_class.values() for file in files])
        counts = torch.tensor([len(files) for files in by_class.values()])
        characters = torch.from_numpy(names.view(np.uint8).reshape(len(names), -1))
        return cls(characters, torch.arange(len(by_class)).repeat_interleave(counts))

    def take(self, positions: Tensor) -> "ImageFiles":
        return ImageFiles(self.names[positions], self.labels[positions])

    def name(self, position: int) -> str:
        return os.fsdecode(self.names[position].numpy().tobytes().rstrip(b"\0"))

    def read(self, position: int) -> bytes:
        try:
            return Path(self.name(position)).read_bytes()
        except OSError as error:
            raise pictures.UnreadableImage(f"not a readable image ({error.strerror})") from None
