"""Images as they are stored, JPEGs mostly: read one at a time, by position."""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raykd.data import pictures
from raykd.data._base import Origin, Part
from raykd.data.class_folders import FilesByClass, to_text
from raykd.paths import open_filesystem

NUM_STATS = 1024  # files whose sizes and times tell one state of a folder from another
REMOTE_READS = 16  # of remote images at once, in each process


def is_remote(base: str) -> bool:
    """Returns whether a path or URI does not lie on a local file system."""
    if "://" not in base:
        return False
    from pyarrow.fs import LocalFileSystem  # here: it takes a while, and folders need it not

    return not isinstance(open_filesystem(base, "data: ")[0], LocalFileSystem)


def hash_tensors(text: str, *tensors: Tensor) -> str:
    """Returns a hash of a text and of tensors' contents."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


class EncodedImages(Part):
    """Images that are decoded when they are needed."""

    origin: Origin | None  # of images that were taken from others
    remote: bool  # whether many reads at once are faster than one after another

    @abstractmethod
    def name(self, position: int) -> str:
        """Returns where an image lies, for messages."""

    @abstractmethod
    def read(self, position: int) -> bytes:
        """Returns an image's bytes. Raises UnreadableImage when they cannot be had."""

    def read_many(self, positions: list[int]) -> list[bytes | None]:
        """Returns the bytes of many images, None for any that could not be had."""
        with ThreadPoolExecutor(REMOTE_READS if self.remote else 1) as pool:
            return list(pool.map(self._read_or_none, positions))

    def _read_or_none(self, position: int) -> bytes | None:
        try:
            return self.read(position)
        except pictures.UnreadableImage:
            return None

    def same_class(self, position: int) -> Iterator[int]:
        """Yields the image's position, then those of the others of its class in a fixed order."""
        yield position
        members = (self.labels == self.labels[position]).nonzero().flatten()
        place = int((members == position).nonzero())
        yield from members.roll(-place)[1:].tolist()


@dataclass(frozen=True, eq=False)
class ImageFiles(EncodedImages):
    """Images in files. The names are kept as one tensor, which processes share."""

    names: Tensor  # [images, longest name], uint8: paths, filled up with zeros
    labels: Tensor  # [images], int64
    origin: Origin | None = None
    remote = False

    @classmethod
    def from_classes(cls, by_class: FilesByClass) -> "ImageFiles":
        """Returns the files of all classes; labels count the classes in their order."""
        names = np.array([os.fsencode(file) for files in by_class.values() for file in files])
        counts = torch.tensor([len(files) for files in by_class.values()])
        characters = torch.from_numpy(names.view(np.uint8).reshape(len(names), -1))
        return cls(characters, torch.arange(len(by_class)).repeat_interleave(counts))

    def take(self, positions: Tensor) -> "ImageFiles":
        """Returns the files at these positions, in this order."""
        origin = Origin(self._key, len(self.labels), positions)
        return ImageFiles(self.names[positions], self.labels[positions], origin)

    @cached_property
    def _key(self) -> str:
        """A hash of the paths, and of some files' sizes and times: all of a million would take too long."""
        digest = hashlib.sha256(self.names.contiguous().numpy().data)
        for position in range(0, len(self.labels), max(1, len(self.labels) // NUM_STATS)):
            path = Path(self._get_path(position))
            stat = path.stat() if path.exists() else None
            digest.update(repr(stat and (stat.st_size, stat.st_mtime_ns)).encode())
        return digest.hexdigest()

    def name(self, position: int) -> str:
        """Returns an image's path; bytes of it that are not UTF-8 are escaped."""
        return to_text(self._get_path(position))

    def read(self, position: int) -> bytes:
        """Returns a file's bytes. Raises UnreadableImage when it is not there, or not to be read."""
        try:
            return Path(self._get_path(position)).read_bytes()
        except OSError as error:
            raise pictures.UnreadableImage(f"not a readable image ({error.strerror})") from None

    def _get_path(self, position: int) -> str:
        return os.fsdecode(self.names[position].numpy().tobytes().rstrip(b"\0"))
