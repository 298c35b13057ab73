"""Small data sets: all pixels in memory, augmented as batch tensor operations on the device.

Legend: n images of a batch, r rotations, p padding. A view id counts (row, column, flip) of a random crop
from the padded image, 0 <= id < (2p + 1)^2 * (2 if flips else 1).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.batch import Batch
from raykd.data._base import Catalogue, Dataset, DataSpec, Part, Source
from raykd.data.look import Look

EVALUATION_BATCH = 1000
ON_CPU = 128  # the memory of larger activations would go back to the system, and be cleared, at every layer


class Origin(NamedTuple):
    """Of images that were taken from others: from which, and which of them."""

    key: str  # a hash of all the pixels
    images: int
    positions: Tensor  # [images taken], int64


@dataclass(frozen=True, eq=False)
class Pixels(Part):
    """Images in memory."""

    pixels: Tensor  # [images, size, size, 3], uint8
    labels: Tensor  # [images], int64
    origin: Origin | None = None

    def take(self, positions: Tensor) -> "Pixels":
        origin = Origin(self._key, len(self.labels), positions)
        return Pixels(self.pixels[positions], self.labels[positions], origin)

    @cached_property
    def _key(self) -> str:
        return hashlib.sha256(self.pixels.contiguous().numpy().data).hexdigest()


class InMemory(DataSpec):
    """The settings of data sets that are kept in memory."""

    padding: Annotated[int, Field(ge=0)] = 4  # pixels on each side that random crops come from

    @property
    def crops(self) -> int:
        """How many views of an image there are, less its rotations."""
        return (2 * self.padding + 1) ** 2 * (2 if self.flip else 1)

    def catalogue(self, dataset: Dataset[Any]) -> Catalogue | None:
        origin = dataset.train.origin
        if origin is None:
            return None
        seen = [origin.key, origin.images, dataset.size, dataset.mean, dataset.std]
        seen += [self.padding, self.flip, self.rotations]
        key = hashlib.sha256(json.dumps(seen).encode()).hexdigest()
        return Catalogue(key, self.crops * self.rotations, origin.images, origin.positions)

    def shorter(self, size: int) -> int:
        return size

    def source(self, dataset: Dataset[Any], device: torch.device) -> "Views":
        look = Look(dataset.train.labels, dataset.mean, dataset.std, device)
        return Views(dataset.train, self, look)


class Views(Source[Pixels]):
    """The training images on a device, ready to be looked at."""

    def __init__(self, train: Pixels, spec: InMemory, look: Look) -> None:
        p = spec.padding
        self._look, self._origin = look, train.origin
        self._size, self._flip, self.rotations = train.pixels.shape[1], spec.flip, spec.rotations
        self._offsets = 2 * p + 1
        self.num_views = spec.crops
        padded = F.pad(train.pixels, (0, 0, p, p, p, p)) if p else train.pixels
        self._rows = padded.to(look.device).flatten(0, 2)  # [images * side * side, 3]: one row a pixel
        self._side = self._size + 2 * p
        grid = torch.arange(self._size)[:, None] * self._side + torch.arange(self._size)
        self._cells = (
            torch.stack([grid, grid.flip(1)]).flatten(1).to(look.device)
        )  # of a crop, of a flipped one

    def batches(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        device = self._look.device
        rows = [None] * len(views) if self._origin is None else self._numbered(positions, views)
        for at, ids, row in zip(positions.to(device), views.to(device), rows, strict=True):
            yield self._look.batch(self._seen(at, ids), at, ids, row)

    def plain(self, part: Pixels, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        size = ON_CPU if self._look.device.type == "cpu" else EVALUATION_BATCH
        shares = (torch.split(tensor[rank::world], size) for tensor in (part.pixels, part.labels))
        for pixels, labels in zip(*shares, strict=True):
            yield self._look.normalised(pixels.to(self._look.device)), labels.to(self._look.device)

    def unreadable(self) -> list[str]:
        return []

    def count(self, lines: list[str]) -> None:
        assert not lines, "all images were read before"

    def _numbered(self, positions: Tensor, views: Tensor) -> Tensor:
        """Views [steps, n, r] of images at positions [steps, n] -> rows of the catalogue [steps, n * r]."""
        assert self._origin is not None
        images = self._origin.positions[positions][..., None] * self.rotations + torch.arange(self.rotations)
        return (images * self.num_views + views).flatten(1)

    def _seen(self, positions: Tensor, views: Tensor) -> Tensor:
        """Images at positions [n] cropped and flipped as views [n, r] -> [n * r, size, size, 3], uint8."""
        images, views = positions.repeat_interleave(self.rotations), views.flatten()
        flip = views % 2 if self._flip else torch.zeros_like(views)
        crop = views // 2 if self._flip else views
        row, column = crop // self._offsets, crop % self._offsets
        corner = (images * self._side + row) * self._side + column
        cells = self._cells[flip] + corner[:, None]
        return self._rows.index_select(0, cells.flatten()).view(-1, self._size, self._size, 3)
