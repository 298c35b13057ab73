"""Large data sets: images are read, decoded and augmented as they are needed, by worker processes (loaders).

A view id seeds the random crop and flip of an image, so a View is a function of (image, view id) here too,
whichever process makes it. Which images come when is said by the loop, by position: a stream has no state,
and resumes by being asked for the rest.
"""

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
from raykd.data import pictures
from raykd.data._base import Catalogue, Dataset, DataSpec, Source
from raykd.data.encoded import Encoded
from raykd.data.look import Look
from raykd.errors import BadInput

EVALUATION_BATCH = 128
NUM_VIEWS = 2**31

Item = tuple[int, list[int]]  # position of an image, its view ids; without any, it is seen as for evaluation
Fetched = tuple[Item, bytes | None]  # its bytes, if they could be had
Loaded = tuple[Tensor | None, list[str]]  # pixels, if they could be had; what is wrong with files on the way


class Streamed(DataSpec):
    """The settings of data sets that are streamed."""

    size: Annotated[int, Field(ge=8)] = 224  # of the crops that the nets see
    area: Annotated[float, Field(gt=0, le=1)] = 0.08  # the least part of an image that a random crop takes
    max_corrupt: Annotated[int, Field(ge=0)] = 0  # files that may be unreadable; others of the class stand in
    decoder: Literal["loaders", "device"] = "loaders"  # who decodes: these processes, or the device by nvJPEG
    loaders: Annotated[int, Field(ge=0)] | None = None  # processes that decode; None: the job's CPU threads

    def catalogue(self, dataset: Dataset[Any]) -> Catalogue | None:
        return None

    def shorter(self, size: int) -> int:
        return round(size * 256 / 224)

    def source(self, dataset: Dataset[Any], device: torch.device) -> "Stream":
        return Stream(dataset.train, self, Look(dataset.train.labels, dataset.mean, dataset.std, device))


class Crops:
    """An image as the nets see it: at random for training, by a view id; in one way for evaluation."""

    def __init__(self, spec: Streamed) -> None:
        from torchvision.transforms import v2  # here: it takes seconds, and small data sets need it not

        crop = v2.RandomResizedCrop(spec.size, scale=(spec.area, 1), antialias=True)
        self._random = v2.Compose([crop, v2.RandomHorizontalFlip(0.5 if spec.flip else 0)])
        resize = v2.Resize(spec.shorter(spec.size), antialias=True)
        self._plain = v2.Compose([resize, v2.CenterCrop(spec.size)])

    def __call__(self, image: Tensor, views: list[int]) -> Tensor:
        """[3, height, width] -> [views or 1, size, size, 3], uint8, on the image's device."""
        seen = [self._seen(image, view) for view in views] or [self._plain(image)]
        return torch.stack(seen).permute(0, 2, 3, 1)

    def _seen(self, image: Tensor, view: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(view)  # crops are drawn on the CPU, for any device
            seen: Tensor = self._random(image)
            return seen


class Reader(torch.utils.data.Dataset[Loaded]):
    """What a loader does: items -> pixels [views, size, size, 3], uint8, of each."""

    def __init__(self, part: Encoded, spec: Streamed) -> None:
        self._part, self._most, self.crops = part, spec.max_corrupt, Crops(spec)

    def __getitems__(self, items: list[Item]) -> list[Loaded]:
        ahead = self._part.ahead([position for position, _ in items])
        return [self.loaded(item, data) for item, data in zip(items, ahead, strict=True)]

    def loaded(self, item: Item, ahead: bytes | None) -> Loaded:
        """One item, or another image of its class; `ahead`: the bytes, where they are here already."""
        position, views = item
        wrong: list[str] = []
        for candidate in self._part.alike(position):
            try:
                known = ahead if candidate == position else None
                image = pictures.decoded(self._part.data(candidate) if known is None else known)
            except pictures.Unreadable as error:
                wrong.append(f"{self._part.name(candidate)}: {error}")
                if len(wrong) > self._most:
                    break
                continue
            return self.crops(image, views), wrong
        return None, wrong


class Fetcher(torch.utils.data.Dataset[Fetched]):
    """What a loader does when the device decodes."""

    def __init__(self, part: Encoded) -> None:
        self._part = part

    def __getitems__(self, items: list[Item]) -> list[Fetched]:
        return list(zip(items, self._part.ahead([position for position, _ in items]), strict=True))


class Stream(Source[Encoded]):
    """Images through loaders, a few batches ahead."""

    num_views = NUM_VIEWS

    def __init__(self, train: Encoded, spec: Streamed, look: Look) -> None:
        self.rotations = spec.rotations
        self._train, self._spec, self._look = train, spec, look
        self._wrong: set[str] = set()

    def batches(self, positions: Tensor, views: Tensor) -> Iterator[Batch]:
        items = (
            list(zip(at.tolist(), ids.tolist(), strict=True))
            for at, ids in zip(positions, views, strict=True)
        )
        device = self._look.device
        for pixels, at, ids in zip(self._load(self._train, items), positions, views, strict=True):
            yield self._look.batch(pixels, at.to(device), ids.to(device))

    def plain(self, part: Encoded, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        own = torch.arange(rank, len(part.labels), world)
        shares = torch.split(own, EVALUATION_BATCH) if len(own) else ()
        items: Iterator[list[Item]] = ([(position, []) for position in share.tolist()] for share in shares)
        for pixels, share in zip(self._load(part, items), shares, strict=True):
            yield self._look.normalised(pixels), part.labels[share].to(self._look.device)

    def _load(self, part: Encoded, items: Iterable[list[Item]]) -> Iterator[Tensor]:
        """Pixels of each batch of items on the device. BadInput when too many images are unreadable."""
        reader, device = Reader(part, self._spec), self._look.device
        by_loaders = self._spec.decoder == "loaders"
        loader = (
            self._loader(reader, _joined, items) if by_loaders else self._loader(Fetcher(part), list, items)
        )
        for batch in loader:
            pixels, wrong = batch if by_loaders else _joined(on_device(batch, reader, device))
            self.count(wrong)
            if pixels is None:
                raise BadInput([f"data: {wrong[-1]}; nor is any other of its class"])
            yield pixels.to(device, non_blocking=True)

    def _loader(self, work: Any, collate: Callable[[list[Any]], Any], items: Iterable[list[Item]]) -> Any:
        loaders = torch.get_num_threads() if self._spec.loaders is None else self._spec.loaders
        return DataLoader(
            work,
            batch_sampler=items,
            collate_fn=collate,
            num_workers=loaders,
            multiprocessing_context=_processes() if loaders else None,
            pin_memory=self._look.device.type == "cuda",
            generator=torch.Generator(),  # the loader draws a number that nobody reads; not from the trial's
        )

    def unreadable(self) -> list[str]:
        return sorted(self._wrong)

    def count(self, lines: list[str]) -> None:
        for line in lines:
            if line in self._wrong:
                continue
            self._wrong.add(line)
            if len(self._wrong) > self._spec.max_corrupt:
                more = f"; {len(self._wrong)} such images, data/max_corrupt = {self._spec.max_corrupt}"
                raise BadInput([f"data: {line}{more}"])
            logging.getLogger(__name__).warning("data: %s; another of its class stands in", line)


def on_device(batch: list[Fetched], reader: Reader, device: torch.device) -> list[Loaded]:
    """Decoded and cropped on the device; what it cannot decode goes the reader's way, in this process."""
    images = pictures.jpegs([data for _, data in batch], device)
    return [
        _moved(reader.loaded(item, data), device) if image is None else (reader.crops(image, item[1]), [])
        for (item, data), image in zip(batch, images, strict=True)
    ]


def _moved(loaded: Loaded, device: torch.device) -> Loaded:
    pixels, wrong = loaded
    return (None if pixels is None else pixels.to(device)), wrong


def _joined(loaded: list[Loaded]) -> Loaded:
    """A batch of what was loaded; no pixels when any could not be had."""
    pixels = [one for one, _ in loaded if one is not None]
    wrong = [line for _, lines in loaded for line in lines]
    return (torch.cat(pixels) if len(pixels) == len(loaded) else None), wrong


def _processes() -> BaseContext:
    """Workers are forked from a server that has the imports, never from this process and its threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, "torchvision.transforms.v2"])
    return context
