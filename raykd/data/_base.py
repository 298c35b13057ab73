"""What every data set gives: parts with labels, a held-out split fixed by a seed, and a source of batches.

Small sets are kept in memory (in_memory.py), large ones are read from files as they are needed (stream.py);
the trainer sees a Source and knows no difference.

Legend: n images of a batch, r rotations. The k-th of the r rotated views of an image has its own view id and
is turned by k * 90 degrees. Where images are flipped, an odd view id is a flipped one.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from raykd.batch import Batch, Triple, Wrap
from raykd.data.augment import Augment, NoAugment
from raykd.spec import Range, Spec

Scale = Annotated[float, Field(gt=0)]
Std = tuple[Scale, Scale, Scale]


class Part(ABC):
    """Some images of a data set, and their labels."""

    labels: Tensor  # [images], int64

    @abstractmethod
    def take(self, positions: Tensor) -> Self:
        """Returns the images at these positions, in this order."""


P = TypeVar("P", bound=Part)


class DatasetInfo(NamedTuple):
    """What a plan must know of a data set."""

    classes: int
    size: int  # images are size x size
    images: int  # to train on


class RawDataset(NamedTuple, Generic[P]):
    """A data set as it lies on disk."""

    classes: tuple[str, ...]
    size: int
    train: P
    test: P
    mean: Triple  # of channels in 0..1
    std: Triple


@dataclass(frozen=True)
class Dataset(Generic[P]):
    """A data set as a trial sees it. `heldout` selects; only `confirm` and `train --test` open `test`."""

    classes: tuple[str, ...]
    size: int
    train: P
    heldout: P
    test: P
    mean: Triple
    std: Triple

    @property
    def info(self) -> DatasetInfo:
        """Returns the numbers of the part that is trained on."""
        return DatasetInfo(len(self.classes), self.size, len(self.train.labels))


class ViewIndex(NamedTuple):
    """All views that can be seen of the images of a whole training set, numbered."""

    key: str  # a hash of what they show
    views: int  # of one image, rotated ones included; the views of an image are adjacent
    images: int
    positions: Tensor  # [training images], int64: where each stands in the whole training set


class Origin(NamedTuple):
    """Of images that were taken from others: from which, and which of them."""

    key: str  # a hash of what they are
    images: int
    positions: Tensor  # [images taken], int64


def number_rows(images: Tensor, view_ids: Tensor, num_views: int) -> Tensor:
    """Returns rows of the view index [..., n * r]: images [..., n] of the whole set, view ids [..., n, r]."""
    rotations = view_ids.shape[-1]
    rows = (images[..., None] * rotations + torch.arange(rotations)) * num_views + view_ids
    return rows.flatten(-2)


class Source(ABC, Generic[P]):
    """A data set's images on their way to a device, for one trial. A view depends on (image, id) alone."""

    num_views: int  # an image's view ids are 0 ... num_views - 1
    rotations: int
    flip: bool  # whether images are flipped at random

    @abstractmethod
    def batches(self, positions: Tensor, view_ids: Tensor) -> Iterator[Batch]:
        """Yields a Batch of n * r a step: training images at [steps, n], by view ids [steps, n, r]."""

    def wrap(self, wrap: Wrap) -> None:
        """Has that part of `batches` wrapped that is a function of tensors on the device: by default none."""

    @abstractmethod
    def evaluation_batches(self, part: P, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields a rank's share of a part, for evaluation: images [n, 3, size, size], labels [n]."""

    @abstractmethod
    def list_unreadable(self) -> list[str]:
        """Returns a line for each image that could not be read, and for which another stood in."""

    @abstractmethod
    def record_corrupt(self, lines: list[str]) -> None:
        """Notes images as unreadable, once each. UserError when there are more than the settings allow."""


class DataSpec(Spec):
    """The settings that all data sets share."""

    name: str
    images: Annotated[int, Field(ge=2)] | None = None  # use so many training images, a stratified part
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # part of them held out for selection; 0: train on all
    split_seed: Annotated[int, Field(ge=0)] = 0
    rotations: Literal[1, 4] = 1  # views of 0, 90, 180, 270 degrees of each image in a batch
    flip: bool = True  # horizontally, at random
    views: Annotated[int, Field(ge=1, le=2**20)] | None = (
        None  # ids that may be drawn for an image; None: all
    )
    mixup: Annotated[float, Field(ge=0), Range(0, 1)] = 0.0  # alpha of Beta(alpha, alpha) (arXiv:1710.09412)
    cutmix: Annotated[float, Field(ge=0), Range(0, 1)] = 0.0  # likewise (arXiv:1905.04899); with both: either
    erasing: Annotated[float, Field(ge=0, le=1), Range(0, 0.5)] = 0.0  # a box of so many views is blank
    augment: Augment = NoAugment()  # of crops, before they are turned, mixed and erased

    @model_validator(mode="after")
    def _check_views(self) -> Self:
        if self.mixes and self.rotations > 1:
            raise ValueError(f"mixup and cutmix mix upright views, but rotations = {self.rotations}")
        if self.views is not None and self.views % 2 and self.rotations > 1 and self.flip:
            raise ValueError(
                f"views = {self.views} is odd: rotated views share their flip, so half of the ids are flipped"
            )
        return self

    @property
    def mixes(self) -> bool:
        """Whether a view shows two images."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def makes_views(self) -> bool:
        """Whether a view is more than the crop that its id counts."""
        return self.views is not None or self.mixes or self.erasing > 0 or self.augment.kind != "none"

    def describe_views(self, positions: Tensor) -> list[Any]:
        """Returns plain data that differ where views do, of training images at these positions."""
        own: list[Any] = [self.flip, self.rotations, self.views, self.mixup, self.cutmix, self.erasing]
        own += [self.augment.model_dump()] if self.augment.kind != "none" else []
        return [*own, hashlib.sha256(positions.numpy().tobytes()).hexdigest()] if self.mixes else own

    @abstractmethod
    def read(self, root: Path, download: bool) -> RawDataset[Any]:
        """Returns the data set from its files under the data root.

        Raises:
            UserError: A file is missing or damaged; the line names it and the expected layout.
        """

    @abstractmethod
    def index_views(self, dataset: Dataset[Any]) -> ViewIndex | None:
        """Returns the data set's views; None where there are too many to be numbered."""

    @abstractmethod
    def make_source(self, dataset: Dataset[Any], device: torch.device) -> Source[Any]:
        """Returns the source of the data set's images on a device."""

    @abstractmethod
    def resize_side(self, size: int) -> int:
        """Returns the pixels of an image's shorter side, before its centre of size x size is evaluated."""

    @abstractmethod
    def published_info(self) -> DatasetInfo | None:
        """Returns the numbers of the whole training set; None where only its files can tell."""

    def expected_info(self) -> DatasetInfo | None:
        """Returns the numbers of the part that is trained on; None where only the files can tell."""
        whole = self.published_info()
        return whole and whole._replace(
            images=self.count_used(whole.images) - self.count_held_out(whole.images)
        )

    def count_used(self, images: int) -> int:
        """Returns how many of the training images are used. Raises ValueError when there are too few."""
        if self.images is not None and self.images > images:
            raise ValueError(f"data/images = {self.images}: there are {images} training images")
        return images if self.images is None else self.images

    def count_held_out(self, images: int) -> int:
        """Returns how many of the training images are used and held out."""
        return round(self.holdout * self.count_used(images))


def split_dataset(spec: DataSpec, raw: RawDataset[P]) -> Dataset[P]:
    """Returns a data set with its subset taken, and the part for selection held out."""
    labels = raw.train.labels
    positions = choose_subset(spec, labels)
    train, heldout = stratified_split(labels[positions], spec.holdout, spec.split_seed)
    return Dataset(
        raw.classes,
        raw.size,
        raw.train.take(torch.from_numpy(positions[train])),
        raw.train.take(torch.from_numpy(positions[heldout])),
        raw.test,
        raw.mean,
        raw.std,
    )


def choose_subset(spec: DataSpec, labels: Tensor) -> np.ndarray:
    """Returns the positions of the training images that are used, ascending."""
    unused = 1 - spec.count_used(len(labels)) / len(labels)
    return stratified_split(labels, unused, spec.split_seed)[0]


def stratified_split(labels: Tensor, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions to train on and positions held out, each ascending; the same share of every class.

    round(holdout * images) are held out; where classes cannot share evenly, those with the largest remainder
    give one more, the first of equals. Fixed by the seed alone, and by a test, since runs are compared by it.
    Not scikit-learn's train_test_split(stratify=...): it refuses classes of one image and parts smaller than
    the number of classes, which small subsets have, draws at random which class gives one more, and takes
    every worker a second to import.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    values = labels.numpy()
    shuffled = generator.permutation(len(values))
    _, counts = np.unique(values, return_counts=True)
    exact = holdout * counts
    num_heldout = np.floor(exact + 1e-9).astype(int)  # of each class
    missing = round(holdout * len(values)) - num_heldout.sum()
    num_heldout[np.argsort(num_heldout - exact, kind="stable")[:missing]] += 1
    by_class = shuffled[np.argsort(values[shuffled], kind="stable")]
    rank = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)  # of each within its class
    heldout = np.sort(by_class[rank < np.repeat(num_heldout, counts)])
    return np.setdiff1d(np.arange(len(values)), heldout), heldout


def epoch_permutation(epoch: int, seed: int, count: int) -> Tensor:
    """Returns a permutation [count] for an epoch, the same on every rank and device."""
    return torch.randperm(count, generator=make_generator(seed, epoch, 0))


def draw_view_ids(epoch: int, seed: int, count: int, source: Source[Any]) -> Tensor:
    """Returns view ids [count, r] for an epoch, the same on every rank and device.

    The rotated views of an image are cropped each on its own and share one flip (xuguodong03/SSKD, cifar.py).
    """
    size = (count, source.rotations)
    view_ids = torch.randint(source.num_views, size, generator=make_generator(seed, epoch, 1))
    return view_ids - view_ids % 2 + view_ids[:, :1] % 2 if source.flip else view_ids


def make_generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """Returns a generator on the host for an epoch; `stream` 0 is of the order, 1 of the views."""
    return torch.Generator().manual_seed((seed * 100_003 + epoch) * 2 + stream)
