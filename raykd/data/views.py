"""Small data sets: all pixels in memory, augmented as batch tensor operations on the device.

Legend: n images of a batch, r rotations, p padding. A view id counts (row, column, flip) of a random crop
from the padded image, 0 <= id < (2p + 1)^2 * (2 if flips else 1).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.data._base import Dataset, DataSpec, Part, Source
from raykd.data.look import Look
from raykd.step import Batch

EVALUATION_BATCH = 500


@dataclass(frozen=True, eq=False)
class Pixels(Part):
    """Images in memory."""

    pixels: Tensor  # [images, size, size, 3], uint8
    labels: Tensor  # [images], int64

    def take(self, positions: Tensor) -> "Pixels":
        return Pixels(self.pixels[positions], self.labels[positions])


class InMemory(DataSpec):
    """The settings of data sets that are kept in memory."""

    padding: Annotated[int, Field(ge=0)] = 4  # pixels on each side that random crops come from

    def source(self, dataset: Dataset[Any], device: torch.device) -> "Views":
        look = Look(dataset.train.labels, dataset.mean, dataset.std, device)
        return Views(dataset.train.pixels, self, look)


class Views(Source[Pixels]):
    """The training images on a device, ready to be looked at."""

    def __init__(self, pixels: Tensor, spec: InMemory, look: Look) -> None:
        p = spec.padding
        self._look = look
        self._size, self._flip, self.rotations = pixels.shape[1], spec.flip, spec.rotations
        self._offsets = 2 * p + 1
        self.num_views = self._offsets**2 * (2 if spec.flip else 1)
        padded = F.pad(pixels, (0, 0, p, p, p, p)) if p else pixels
        self._rows = padded.to(look.device).flatten(0, 2)  # [images * side * side, 3]: one row a pixel
        self._side = self._size + 2 * p
        self._range = torch.arange(self._size, device=look.device)

    def batches(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        device = self._look.device
        for at, ids in zip(positions.to(device), views.to(device), strict=True):
            yield self._look.batch(self._seen(at, ids), at, ids)

    def plain(self, part: Pixels, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        shares = (torch.split(tensor[rank::world], EVALUATION_BATCH) for tensor in (part.pixels, part.labels))
        for pixels, labels in zip(*shares, strict=True):
            yield self._look.normalised(pixels.to(self._look.device)), labels.to(self._look.device)

    def unreadable(self) -> list[str]:
        return []

    def count(self, lines: list[str]) -> None:
        assert not lines, "all images were read before"

    def _seen(self, positions: Tensor, views: Tensor) -> Tensor:
        """Images at positions [n] cropped and flipped as views [n, r] -> [n * r, size, size, 3], uint8."""
        images, views = positions.repeat_interleave(self.rotations), views.flatten()
        flip = views % 2 if self._flip else torch.zeros_like(views)
        crop = views // 2 if self._flip else views
        row, column = crop // self._offsets, crop % self._offsets
        ys = row[:, None] + self._range
        xs = column[:, None] + torch.where(flip[:, None] == 1, self._range.flip(0), self._range)
        cells = (images[:, None] * self._side + ys)[:, :, None] * self._side + xs[:, None, :]
        return self._rows.index_select(0, cells.flatten()).view(*cells.shape, 3)
