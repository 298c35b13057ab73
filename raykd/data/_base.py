"""What every data set gives: parts as uint8 images, and a held-out split that is fixed by a seed."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from raykd.space import Spec

Triple = tuple[float, float, float]


class Part(NamedTuple):
    """Some images of a data set."""

    pixels: Tensor  # [images, height, width, 3], uint8
    labels: Tensor  # [images], int64


class Raw(NamedTuple):
    """A data set as it lies on disk."""

    classes: tuple[str, ...]
    train: Part
    test: Part
    mean: Triple  # of channels in 0..1
    std: Triple


@dataclass(frozen=True)
class Dataset:
    """A data set as a trial sees it. `heldout` selects; only `confirm` and `train --test` open `test`."""

    classes: tuple[str, ...]
    train: Part
    heldout: Part
    test: Part
    mean: Triple
    std: Triple


class DataSpec(Spec):
    """The settings that all data sets share."""

    images: Annotated[int, Field(ge=2)] | None = None  # use so many training images, a stratified part
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # part of them held out for selection; 0: train on all
    split_seed: Annotated[int, Field(ge=0)] = 0
    rotations: Literal[1, 4] = 1  # views of 0, 90, 180, 270 degrees of each image in a batch
    padding: Annotated[int, Field(ge=0)] = 4  # pixels on each side that random crops come from
    flip: bool = True  # horizontally, at random

    @abstractmethod
    def read(self, root: Path, download: bool) -> Raw:
        """The data set from its files under the data root. BadInput names the file and the layout."""


def prepare(spec: DataSpec, raw: Raw) -> Dataset:
    """Take the subset and hold out the selection part."""
    positions = np.arange(len(raw.train.labels))
    if spec.images is not None:
        if spec.images > len(positions):
            raise ValueError(f"data/images = {spec.images}: there are {len(positions)} training images")
        rest = 1 - spec.images / len(positions)
        positions, _ = split(raw.train.labels, rest, spec.split_seed)
    train, heldout = split(raw.train.labels[positions], spec.holdout, spec.split_seed)
    part = _take(raw.train, positions[train])
    held = _take(raw.train, positions[heldout])
    return Dataset(raw.classes, part, held, raw.test, raw.mean, raw.std)


def split(labels: Tensor, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions to train on and positions held out, each ascending; the same share of every class.

    Sizes: round(holdout * images) held out; where classes cannot share evenly, those with the largest
    remainder give one more. Fixed by the seed alone.
    """
    chance = np.random.Generator(np.random.PCG64(seed))
    values = labels.numpy()
    shuffled = chance.permutation(len(values))
    _, counts = np.unique(values, return_counts=True)
    exact = holdout * counts
    give = np.floor(exact + 1e-9).astype(int)
    missing = round(holdout * len(values)) - give.sum()
    give[np.argsort(give - exact, kind="stable")[:missing]] += 1
    held = [
        shuffled[values[shuffled] == label][:count]
        for label, count in zip(np.unique(values), give, strict=True)
    ]
    heldout = np.sort(np.concatenate(held)) if held else np.empty(0, int)
    return np.setdiff1d(np.arange(len(values)), heldout), heldout


def _take(part: Part, positions: Sequence[int] | np.ndarray) -> Part:
    chosen = torch.as_tensor(positions, dtype=torch.int64)
    return Part(part.pixels[chosen], part.labels[chosen])
