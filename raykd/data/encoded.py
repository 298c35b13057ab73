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

READS = 16  # of remote images at once, in each process


class Encoded(Part):
    """Images that are decoded when they are needed."""

    remote: bool  # whether many reads at once are faster than one after another

    @abstractmethod
    def name(self, position: int) -> str:
        """Where an image lies, for messages."""

    @abstractmethod
    def data(self, position: int) -> bytes:
        """An image's bytes. Unreadable when they cannot be had."""

    def ahead(self, positions: list[int]) -> list[bytes | None]:
        """The bytes of many images, None for any that could not be had."""
        with ThreadPoolExecutor(READS if self.remote else 1) as pool:
            return list(pool.map(self._if_readable, positions))

    def _if_readable(self, position: int) -> bytes | None:
        try:
            return self.data(position)
        except pictures.Unreadable:
            return None

    def alike(self, position: int) -> Iterator[int]:
        """The image, then the others of its class in a fixed order."""
        yield position
        same = (self.labels == self.labels[position]).nonzero().flatten()
        place = int((same == position).nonzero())
        yield from same.roll(-place)[1:].tolist()


@dataclass(frozen=True, eq=False)
class Files(Encoded):
    """Images in files. The names are kept as one tensor, which processes share."""

    names: Tensor  # [images, longest name], uint8: paths, filled up with zeros
    labels: Tensor  # [images], int64
    remote = False

    @classmethod
    def of(cls, by_class: pictures.ByClass) -> "Files":
        names = np.array([os.fsencode(file) for files in by_class.values() for file in files])
        counts = torch.tensor([len(files) for files in by_class.values()])
        cells = torch.from_numpy(names.view(np.uint8).reshape(len(names), -1))
        return cls(cells, torch.arange(len(by_class)).repeat_interleave(counts))

    def take(self, positions: Tensor) -> "Files":
        return Files(self.names[positions], self.labels[positions])

    def name(self, position: int) -> str:
        return os.fsdecode(self.names[position].numpy().tobytes().rstrip(b"\0"))

    def data(self, position: int) -> bytes:
        try:
            return Path(self.name(position)).read_bytes()
        except OSError as error:
            raise pictures.Unreadable(f"not a readable image ({error.strerror})") from None
