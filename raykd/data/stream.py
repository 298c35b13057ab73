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
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from raykd.batch import Batch
from raykd.data import pictures
from raykd.data._base import Dataset, DataSpec, Source, ViewIndex, number_rows
from raykd.data.encoded import EncodedImages
from raykd.data.normalizer import Normalizer
from raykd.data.resample import View, Window, resample
from raykd.data.views import NUM_VIEWS, ViewMaker
from raykd.errors import UserError

EVALUATION_BATCH = 128

Item = tuple[int, list[int]]  # position of an image, its view ids; without any, it is cropped for evaluation
Fetched = tuple[Item, bytes | None, list[View]]  # its bytes, if they could be had; its crops
LoadedItem = tuple[
    Tensor | None, list[str]
]  # pixels, if they could be had; what is wrong with files on the way


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

    def make_source(self, dataset: Dataset[Any], device: torch.device) -> "StreamedSource":
        """Returns a source that reads the files as they are needed."""
        return StreamedSource(
            dataset.train, self, Normalizer(dataset.train.labels, dataset.mean, dataset.std, device)
        )


class Augmentation:
    """An image as the nets see it: at random for training, by a view id; in one way for evaluation."""

    def __init__(self, spec: StreamedSpec) -> None:
        from torchvision.transforms import v2  # here: it takes seconds, and small data sets need it not

        crop = v2.RandomResizedCrop(spec.size, scale=(spec.area, 1), antialias=True)
        self.size, self._side = spec.size, spec.resize_side(spec.size)
        self._crop, self._flip = crop, spec.flip
        self._evaluation = v2.Compose([v2.Resize(self._side, antialias=True), v2.CenterCrop(spec.size)])

    def __call__(self, image: Tensor, view_ids: list[int]) -> Tensor:
        """Returns views of an image [3, height, width]: [views or 1, size, size, 3], uint8, on its device."""
        crops = [self._make_view(image, view_id) for view_id in view_ids] or [self._evaluation(image)]
        return torch.stack(crops).permute(0, 2, 3, 1)

    def _make_view(self, image: Tensor, view_id: int) -> Tensor:
        with _seed(view_id):
            view: Tensor = self._crop(image)
        return view.flip(2) if self._is_flipped(view_id) else view

    def _is_flipped(self, view_id: int) -> bool:
        return self._flip and view_id % 2 == 1

    def list_windows(self, sides: tuple[int, int], view_ids: list[int]) -> list[View]:
        """Returns what the same views show of the rows and columns of an image of (height, width)."""
        if view_ids:
            return [self._draw_windows(sides, view_id) for view_id in view_ids]
        resized = (int(self._side * side / min(sides)) for side in sides)
        rows, columns = (
            Window(0, side, after, round((after - self.size) / 2), 1)
            for side, after in zip(sides, resized, strict=True)
        )
        return [(rows, columns)]

    def _draw_windows(self, sides: tuple[int, int], view_id: int) -> View:
        with _seed(view_id):
            crop = self._crop.make_params([torch.empty(1, *sides, device="meta")])
        first, step = (self.size - 1, -1) if self._is_flipped(view_id) else (0, 1)
        rows = Window(crop["top"], crop["height"], self.size, 0, 1)
        return rows, Window(crop["left"], crop["width"], self.size, first, step)


@contextmanager
def _seed(view_id: int) -> Iterator[None]:
    """Draws for a `with` block by a view id, on the CPU for any device; other draws are not touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(view_id)
        yield


class ImageReader(torch.utils.data.Dataset[LoadedItem]):
    """What a loader does: reads items and makes pixels [views, size, size, 3], uint8, of each."""

    def __init__(self, part: EncodedImages, spec: StreamedSpec) -> None:
        self._part, self._max_corrupt, self.augmentation = part, spec.max_corrupt, Augmentation(spec)

    def __getitems__(self, items: list[Item]) -> list[LoadedItem]:
        contents = self._part.read_many([position for position, _ in items])
        return [self.load(item, encoded) for item, encoded in zip(items, contents, strict=True)]

    def load(self, item: Item, encoded: bytes | None) -> LoadedItem:
        """Returns views of one item, or of another image of its class; `encoded` as for `decode`."""
        image, unreadable = self.decode(item[0], encoded)
        return (None if image is None else self.augmentation(image, item[1])), unreadable

    def decode(self, position: int, encoded: bytes | None) -> LoadedItem:
        """Returns an image [3, height, width], or another of its class; `encoded`: its bytes, if known."""
        unreadable: list[str] = []
        for candidate in self._part.same_class(position):
            try:
                content = encoded if candidate == position else None
                image = pictures.decode(self._part.read(candidate) if content is None else content)
            except pictures.UnreadableImage as error:
                unreadable.append(f"{self._part.name(candidate)}: {error}")
                if len(unreadable) > self._max_corrupt:
                    break
                continue
            return image, unreadable
        return None, unreadable


class BytesReader(torch.utils.data.Dataset[Fetched]):
    """What a loader does when the device decodes: reads items, and draws what is to be seen of each."""

    def __init__(self, part: EncodedImages, spec: StreamedSpec) -> None:
        self._part, self._augmentation = part, Augmentation(spec)

    def __getitems__(self, items: list[Item]) -> list[Fetched]:
        contents = self._part.read_many([position for position, _ in items])
        return [
            (item, encoded, self._list_windows(item, encoded))
            for item, encoded in zip(items, contents, strict=True)
        ]

    def _list_windows(self, item: Item, encoded: bytes | None) -> list[View]:
        try:
            sides = None if encoded is None else pictures.read_sides(encoded)
        except pictures.UnreadableImage:  # the reader, which will load it, says so
            sides = None
        return [] if sides is None else self._augmentation.list_windows(sides, item[1])


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
        reader, device = ImageReader(part, self._spec), self._normalizer.device
        by_loaders = self._spec.decoder == "loaders"
        loader = (
            self._make_loader(reader, _collate, items)
            if by_loaders
            else self._make_loader(BytesReader(part, self._spec), list, items)
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


def decode_on_device(batch: list[Fetched], reader: ImageReader, device: torch.device) -> LoadedItem:
    """Returns views of items, cropped on the device; what it cannot decode the reader does, here."""
    decoded = pictures.decode_jpegs([encoded if views else None for _, encoded, views in batch], device)
    images: list[Tensor] = []
    all_views, all_unreadable = list[list[View]](), list[str]()
    for image, ((position, view_ids), encoded, views) in zip(decoded, batch, strict=True):
        if image is None:
            loaded, unreadable = reader.decode(position, encoded)
            all_unreadable += unreadable
            if loaded is None:
                return None, all_unreadable
            image = loaded.to(device)
            views = reader.augmentation.list_windows((image.shape[1], image.shape[2]), view_ids)
        images.append(image)
        all_views.append(views)
    return resample(images, all_views, reader.augmentation.size), all_unreadable


def _collate(items: list[LoadedItem]) -> LoadedItem:
    """Returns items as one; without pixels when any image could not be had."""
    pixels = [one for one, _ in items if one is not None]
    unreadable = [line for _, lines in items for line in lines]
    return (torch.cat(pixels) if len(pixels) == len(items) else None), unreadable


def _forkserver_context() -> BaseContext:
    """Returns the context in which loaders are forked: from a server that has the imports, and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, "torchvision.transforms.v2"])
    return context
