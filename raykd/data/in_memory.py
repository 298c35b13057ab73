"""Small data sets: all pixels in memory, augmented as batch tensor operations on the device.

Legend: n images of a batch, r rotations, p padding. A view id counts (row, column, flip) of a random crop
from the padded image, 0 <= id < (2p + 1)^2 * (2 if flips else 1).
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.batch import Batch, Wrap
from raykd.data._base import Dataset, DataSpec, Origin, Part, Source, ViewIndex, number_rows
from raykd.data.normalizer import Normalizer
from raykd.data.views import NUM_VIEWS, ViewMaker

EVALUATION_BATCH = 1000
EVALUATION_BATCH_CPU = (
    128  # the memory of larger activations would go back to the system, and be cleared, at every layer
)


@dataclass(frozen=True, eq=False)
class Pixels(Part):
    """Images in memory."""

    pixels: Tensor  # [images, size, size, 3], uint8
    labels: Tensor  # [images], int64
    origin: Origin | None = None

    def take(self, positions: Tensor) -> "Pixels":
        """Returns the images at these positions, in this order; they know which of all images they are."""
        origin = Origin(self._key, len(self.labels), positions)
        return Pixels(self.pixels[positions], self.labels[positions], origin)

    @cached_property
    def _key(self) -> str:
        return hashlib.sha256(self.pixels.contiguous().numpy().data).hexdigest()


class InMemorySpec(DataSpec):
    """The settings of data sets that are kept in memory."""

    padding: Annotated[int, Field(ge=0)] = 4  # pixels on each side that random crops come from

    @property
    def num_crops(self) -> int:
        """Returns how many views of an image there are, rotations not counted."""
        return (2 * self.padding + 1) ** 2 * (2 if self.flip else 1)

    @property
    def num_views(self) -> int:
        """Returns how many view ids an image has."""
        if self.views is not None:
            return self.views
        return NUM_VIEWS if self.makes_views else self.num_crops

    def index_views(self, dataset: Dataset[Any]) -> ViewIndex | None:
        """Returns the views of all images that the training images were taken from.

        None if they were taken from none, or their views are too many to be numbered.
        """
        origin = dataset.train.origin
        if origin is None or self.num_views == NUM_VIEWS:
            return None
        content = [origin.key, origin.images, dataset.size, dataset.mean, dataset.std, self.padding]
        content += self.describe_views(origin.positions)
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return ViewIndex(key, self.num_views * self.rotations, origin.images, origin.positions)

    def resize_side(self, size: int) -> int:
        """Returns the size itself: the images have it."""
        return size

    def make_source(self, dataset: Dataset[Any], device: torch.device) -> "InMemorySource":
        """Returns a source with the training images, padded, on the device."""
        normalizer = Normalizer(dataset.train.labels, dataset.mean, dataset.std, device)
        return InMemorySource(dataset.train, self, normalizer)


class InMemorySource(Source[Pixels]):
    """The training images, padded, on a device."""

    def __init__(self, train: Pixels, spec: InMemorySpec, normalizer: Normalizer) -> None:
        p = spec.padding
        self._normalizer, self._origin = normalizer, train.origin
        self._size, self.flip, self.rotations = train.pixels.shape[1], spec.flip, spec.rotations
        self._offsets = 2 * p + 1
        self.num_views, self._num_crops = spec.num_views, spec.num_crops
        images = torch.arange(len(train.labels)) if train.origin is None else train.origin.positions
        self._view_maker = ViewMaker(spec, images) if spec.makes_views else None
        padded = F.pad(train.pixels, (0, 0, p, p, p, p)) if p else train.pixels
        self.pixel_rows = padded.to(normalizer.device).flatten(
            0, 2
        )  # [images * side * side, 3]: one row a pixel
        self._side = self._size + 2 * p
        grid = torch.arange(self._size)[:, None] * self._side + torch.arange(self._size)
        self._cells = (
            torch.stack([grid, grid.flip(1)]).flatten(1).to(normalizer.device)
        )  # of a crop, of a flipped one
        self._wrapped: Callable[..., Batch] | None = None

    def batches(self, positions: Tensor, view_ids: Tensor) -> Iterator[Batch]:
        """Yields a batch a step, cropped and flipped on the device; as Source says."""
        device = self._normalizer.device
        rows = [None] * len(view_ids) if self._origin is None else self._index_rows(positions, view_ids)
        if self._view_maker is not None:
            for step_positions, ids, row in zip(positions, view_ids, rows, strict=True):
                yield self._make_views(self._view_maker, step_positions, ids, row)
            return
        for step_positions, ids, row in zip(positions.to(device), view_ids.to(device), rows, strict=True):
            yield replace((self._wrapped or self._crop_batch)(step_positions, ids), row=row)

    def wrap(self, wrap: Wrap) -> None:
        """As Source says: crops, unless they are changed further, which the host decides."""
        self._wrapped = wrap("views", self._crop_batch)

    def _crop_batch(self, positions: Tensor, view_ids: Tensor) -> Batch:
        return self._normalizer.make_batch(self._crop(positions, view_ids), positions, view_ids)

    def _make_views(
        self, view_maker: ViewMaker, positions: Tensor, view_ids: Tensor, row: Tensor | None
    ) -> Batch:
        on_host = view_maker.list_crops(positions, view_ids)
        crop_positions, seeds = (t.to(self._normalizer.device) for t in on_host)
        crops = view_maker.augment(self._crop(crop_positions, seeds % self._num_crops), *on_host)
        batch = self._normalizer.make_batch(crops, crop_positions, seeds)
        return view_maker.finish(batch, positions, view_ids, row)

    def evaluation_batches(self, part: Pixels, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields every world-th image and label of a part, as they are; as Source says."""
        size = EVALUATION_BATCH_CPU if self._normalizer.device.type == "cpu" else EVALUATION_BATCH
        shares = (torch.split(tensor[rank::world], size) for tensor in (part.pixels, part.labels))
        for pixels, labels in zip(*shares, strict=True):
            yield (
                self._normalizer.normalize(pixels.to(self._normalizer.device)),
                labels.to(self._normalizer.device),
            )

    def list_unreadable(self) -> list[str]:
        """Returns no line: all images were read before."""
        return []

    def record_corrupt(self, lines: list[str]) -> None:
        """Asserts that there are none."""
        assert not lines, "all images were read before"

    def _index_rows(self, positions: Tensor, view_ids: Tensor) -> Tensor:
        """View ids [steps, n, r] of positions [steps, n] -> rows of the view index [steps, n * r]."""
        assert self._origin is not None
        return number_rows(self._origin.positions[positions], view_ids, self.num_views)

    def _crop(self, positions: Tensor, view_ids: Tensor) -> Tensor:
        """Images at positions [n] cropped and flipped by view ids [n, r] -> [n * r, size, size, 3], uint8."""
        images, view_ids = positions.repeat_interleave(self.rotations), view_ids.flatten()
        flip = view_ids % 2 if self.flip else torch.zeros_like(view_ids)
        crop = view_ids // 2 if self.flip else view_ids
        row, column = crop // self._offsets, crop % self._offsets
        corner = (images * self._side + row) * self._side + column
        cells = self._cells[flip] + corner[:, None]
        return self.pixel_rows.index_select(0, cells.flatten()).view(-1, self._size, self._size, 3)
