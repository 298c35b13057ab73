"""Large data sets: images are read, decoded and augmented as they are needed, by worker processes (loaders).

A view id seeds the random crop of an image, and an odd one flips it, so a view is a function of (image, view
id) here too, whichever process makes it. Which images come when is the trainer's choice, by position: a
stream has no state, and resumes when it is given the rest of the positions.
"""

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import BaseContext
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from raykd.batch import Batch
from raykd.data._base import Dataset, DataSpec, Source, ViewIndex, number_rows
from raykd.data.encoded import EncodedImages
from raykd.data.image_reader import (
    Augmentation,
    BytesReader,
    ImageReader,
    Item,
    collate,
    decode_on_device,
)
from raykd.data.normalizer import Normalizer
from raykd.data.views import NUM_VIEWS, ViewMaker
from raykd.errors import UserError

EVALUATION_BATCH = 128


class StreamedSpec(DataSpec):
    """The settings of data sets that are streamed."""

    size: Annotated[int, Field(ge=8)] = 224  # of the crops that the nets see
    area: Annotated[float, Field(gt=0, le=1)] = 0.08  # the least part of an image that a random crop takes
    max_corrupt: Annotated[int, Field(ge=0)] = 0  # files that may be unreadable; others of the class stand in
    decoder: Literal["loaders", "device"] = "loaders"  # who decodes: these processes, or the device by nvJPEG
    loaders: Annotated[int, Field(ge=0)] | None = None  # processes that decode; None: the job's CPU threads

    def index_views(self, dataset: Dataset[Any]) -> ViewIndex | None:
        """Returns the views of the whole training set where `views` bounds them; None: an image has 2^31.

        None also where images of the class may stand in for others: which, depends on what is held out.
        """
        origin = dataset.train.origin
        if self.views is None or origin is None or self.max_corrupt:
            return None
        content = [
            origin.key,
            origin.images,
            dataset.size,
            dataset.mean,
            dataset.std,
            self.area,
            self.decoder,
        ]
        content += self.describe_views(origin.positions)
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return ViewIndex(key, self.views * self.rotations, origin.images, origin.positions)

    def resize_side(self, size: int) -> int:
        """Returns 256 / 224 of the size, the usual rule of ImageNet (torchvision's references)."""
        return round(size * 256 / 224)

    def make_augmentation(self) -> Augmentation:
        """Returns what makes views of images."""
        return Augmentation(self.size, self.resize_side(self.size), self.area, self.flip)

    def make_source(self, dataset: Dataset[Any], device: torch.device) -> "StreamedSource":
        """Returns a source that reads the files as they are needed."""
        return StreamedSource(
            dataset.train, self, Normalizer(dataset.train.labels, dataset.mean, dataset.std, device)
        )


class StreamedSource(Source[EncodedImages]):
    """Images through loaders, a few batches ahead."""

    def __init__(self, train: EncodedImages, spec: StreamedSpec, normalizer: Normalizer) -> None:
        self.rotations, self.flip = spec.rotations, spec.flip
        self._train, self._spec, self._normalizer = train, spec, normalizer
        self._unreadable: set[str] = set()
        self.num_views = spec.views or NUM_VIEWS
        images = torch.arange(len(train.labels)) if train.origin is None else train.origin.positions
        self._images, self._view_maker = images, ViewMaker(spec, images)

    def batches(self, positions: Tensor, view_ids: Tensor) -> Iterator[Batch]:
        """Yields a batch a step, decoded ahead; as Source says. Raises UserError for a corrupt image."""
        items = (
            list(zip(*(t.tolist() for t in self._view_maker.list_crops(step_positions, ids)), strict=True))
            for step_positions, ids in zip(positions, view_ids, strict=True)
        )
        batches, device = self._load_batches(self._train, items), self._normalizer.device
        if self._spec.makes_views:
            for pixels, step_positions, ids in zip(batches, positions, view_ids, strict=True):
                yield self._make_views(pixels, step_positions, ids)
            return
        on_device = positions.to(device), view_ids.to(device)  # once: each of these copies waits for a GPU
        for pixels, step_positions, ids in zip(batches, *on_device, strict=True):
            yield self._normalizer.make_batch(pixels, step_positions, ids)

    def _make_views(self, pixels: Tensor, positions: Tensor, view_ids: Tensor) -> Batch:
        on_host = self._view_maker.list_crops(positions, view_ids)
        pixels = self._view_maker.augment(pixels, *on_host)
        batch = self._normalizer.make_batch(pixels, *(t.to(self._normalizer.device) for t in on_host))
        is_numbered = self._spec.views is not None
        row = number_rows(self._images[positions], view_ids, self.num_views) if is_numbered else None
        return self._view_maker.finish(batch, positions, view_ids, row)

    def evaluation_batches(
        self, part: EncodedImages, rank: int, world: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields every world-th image of a part, its centre, and their labels; as Source says."""
        rank_positions = torch.arange(rank, len(part.labels), world)
        shares = torch.split(rank_positions, EVALUATION_BATCH) if len(rank_positions) else ()
        items: Iterator[list[Item]] = ([(position, []) for position in share.tolist()] for share in shares)
        for pixels, share in zip(self._load_batches(part, items), shares, strict=True):
            yield self._normalizer.normalize(pixels), part.labels[share].to(self._normalizer.device)

    def _load_batches(self, part: EncodedImages, items: Iterable[list[Item]]) -> Iterator[Tensor]:
        """Yields pixels of each batch of items on the device. UserError when too many are unreadable."""
        augmentation, device = self._spec.make_augmentation(), self._normalizer.device
        reader = ImageReader(part, augmentation, self._spec.max_corrupt)
        by_loaders = self._spec.decoder == "loaders"
        loader = (
            self._make_loader(reader, collate, items)
            if by_loaders
            else self._make_loader(BytesReader(part, augmentation), list, items)
        )
        for batch in loader:
            pixels, unreadable = batch if by_loaders else decode_on_device(batch, reader, device)
            self.record_corrupt(unreadable)
            if pixels is None:
                raise UserError([f"data: {unreadable[-1]}; nor is any other of its class"])
            yield pixels.to(device, non_blocking=True)

    def _make_loader(
        self, dataset: Any, collate: Callable[[list[Any]], Any], items: Iterable[list[Item]]
    ) -> Any:
        loaders = torch.get_num_threads() if self._spec.loaders is None else self._spec.loaders
        return DataLoader(
            dataset,
            batch_sampler=items,
            collate_fn=collate,
            num_workers=loaders,
            multiprocessing_context=_forkserver_context() if loaders else None,
            pin_memory=self._normalizer.device.type == "cuda",
            generator=torch.Generator(),  # the loader draws a number that nobody reads; not from the trial's
        )

    def list_unreadable(self) -> list[str]:
        """Returns a line for each image that could not be read, sorted."""
        return sorted(self._unreadable)

    def record_corrupt(self, lines: list[str]) -> None:
        """Notes and logs unreadable images, once each. UserError when more than `max_corrupt`."""
        for line in lines:
            if line in self._unreadable:
                continue
            self._unreadable.add(line)
            if len(self._unreadable) > self._spec.max_corrupt:
                more = f"; {len(self._unreadable)} such images, data/max_corrupt = {self._spec.max_corrupt}"
                raise UserError([f"data: {line}{more}"])
            logging.getLogger(__name__).warning("data: %s; another of its class stands in", line)


def _forkserver_context() -> BaseContext:
    """Returns the context in which loaders are forked: from a server that has the imports, and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, "torchvision.transforms.v2"])
    return context
