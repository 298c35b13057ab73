"""Large data sets: images are read, decoded and augmented by worker processes as they are needed.

A view id seeds the random crop and flip of an image, so a View is a function of (image, view id) here too,
whichever process makes it.
"""

import logging
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from raykd.data import pictures
from raykd.data._base import Catalogue, Dataset, DataSpec, Part, Source
from raykd.data.look import Look
from raykd.mistakes import BadInput
from raykd.step import Batch

EVALUATION_BATCH = 128
NUM_VIEWS = 2**31

Item = tuple[int, list[int]]  # position of an image, its view ids; without any, it is seen as for evaluation
Loaded = tuple[Tensor | None, list[str]]  # pixels, if they could be had; what is wrong with files on the way


@dataclass(frozen=True, eq=False)
class Files(Part):
    """Images in files. The names are kept as one tensor, which processes share."""

    names: Tensor  # [images, longest name], uint8: paths, filled up with zeros
    labels: Tensor  # [images], int64

    @classmethod
    def of(cls, by_class: pictures.ByClass) -> "Files":
        names = np.array([os.fsencode(file) for files in by_class.values() for file in files])
        counts = torch.tensor([len(files) for files in by_class.values()])
        cells = torch.from_numpy(names.view(np.uint8).reshape(len(names), -1))
        return cls(cells, torch.arange(len(by_class)).repeat_interleave(counts))

    def take(self, positions: Tensor) -> "Files":
        return Files(self.names[positions], self.labels[positions])

    def file(self, position: int) -> str:
        return os.fsdecode(self.names[position].numpy().tobytes().rstrip(b"\0"))

    def alike(self, position: int) -> Iterator[int]:
        """The image, then the others of its class in a fixed order."""
        yield position
        same = (self.labels == self.labels[position]).nonzero().flatten()
        place = int((same == position).nonzero())
        yield from same.roll(-place)[1:].tolist()


class Streamed(DataSpec):
    """The settings of data sets that are streamed."""

    size: Annotated[int, Field(ge=8)] = 224  # of the crops that the nets see
    area: Annotated[float, Field(gt=0, le=1)] = 0.08  # the least part of an image that a random crop takes
    max_corrupt: Annotated[int, Field(ge=0)] = 0  # files that may be unreadable; others of the class stand in
    loaders: Annotated[int, Field(ge=0)] | None = None  # processes that decode; None: the job's CPU threads

    def catalogue(self, dataset: Dataset[Any]) -> Catalogue | None:
        return None

    def source(self, dataset: Dataset[Any], device: torch.device) -> "Stream":
        return Stream(dataset.train, self, Look(dataset.train.labels, dataset.mean, dataset.std, device))


class Reader(torch.utils.data.Dataset[Loaded]):
    """What a worker process does: Item -> pixels [views, size, size, 3], uint8."""

    def __init__(self, part: Files, spec: Streamed) -> None:
        from torchvision.transforms import v2  # here: it takes seconds, and small data sets need it not

        self._part, self._most = part, spec.max_corrupt
        crop = v2.RandomResizedCrop(spec.size, scale=(spec.area, 1), antialias=True)
        self._random = v2.Compose([crop, v2.RandomHorizontalFlip(0.5 if spec.flip else 0)])
        shorter = round(spec.size * 256 / 224)
        self._plain = v2.Compose([v2.Resize(shorter, antialias=True), v2.CenterCrop(spec.size)])

    def __getitem__(self, item: Item) -> Loaded:
        position, views = item
        wrong: list[str] = []
        for candidate in self._part.alike(position):
            try:
                image = pictures.decoded(self._part.file(candidate))
            except pictures.Unreadable as error:
                wrong.append(str(error))
                if len(wrong) > self._most:
                    break
                continue
            seen = [self._seen(image, view) for view in views] or [self._plain(image)]
            return torch.stack(seen).permute(0, 2, 3, 1), wrong
        return None, wrong

    def _seen(self, image: Tensor, view: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(view)
            seen: Tensor = self._random(image)
            return seen


class Stream(Source[Files]):
    """Images through worker processes, a few batches ahead. Each rank counts unreadable files on its own."""

    num_views = NUM_VIEWS

    def __init__(self, train: Files, spec: Streamed, look: Look) -> None:
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

    def plain(self, part: Files, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        shares = torch.split(torch.arange(rank, len(part.labels), world), EVALUATION_BATCH)
        items: Iterator[list[Item]] = ([(position, []) for position in share.tolist()] for share in shares)
        for pixels, share in zip(self._load(part, items), shares, strict=True):
            yield self._look.normalised(pixels), part.labels[share].to(self._look.device)

    def _load(self, part: Files, items: Iterable[list[Item]]) -> Iterator[Tensor]:
        """Pixels of each batch of items on the device. BadInput when too many files are unreadable."""
        loaders = torch.get_num_threads() if self._spec.loaders is None else self._spec.loaders
        loader = DataLoader(
            Reader(part, self._spec),
            batch_sampler=items,
            collate_fn=_joined,
            num_workers=loaders,
            multiprocessing_context=_processes() if loaders else None,
            pin_memory=self._look.device.type == "cuda",
            generator=torch.Generator(),  # the loader draws a number that nobody reads; not from the trial's
        )
        for pixels, wrong in loader:
            self._count(wrong)
            if pixels is None:
                raise BadInput([f"data: {wrong[-1]}; nor is any other of its class"])
            yield pixels.to(self._look.device, non_blocking=True)

    def _count(self, wrong: list[str]) -> None:
        for line in wrong:
            if line in self._wrong:
                continue
            self._wrong.add(line)
            if len(self._wrong) > self._spec.max_corrupt:
                more = f"; {len(self._wrong)} such images, data/max_corrupt = {self._spec.max_corrupt}"
                raise BadInput([f"data: {line}{more}"])
            logging.getLogger(__name__).warning("data: %s; another of its class stands in", line)


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
