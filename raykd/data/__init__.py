"""Data sets, a file each: CIFAR, STL-10, Tiny-ImageNet, digits and small folders in memory, ImageNet and its
like from files.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from raykd.data._base import Catalogue, Dataset, DataSpec, Figures, Source, draw, order, prepare
from raykd.data.cifar10 import CIFAR10
from raykd.data.cifar100 import CIFAR100
from raykd.data.digits import Digits
from raykd.data.folder import Folder
from raykd.data.imagenet import ImageNet
from raykd.data.stl10 import STL10
from raykd.data.tiny_imagenet import TinyImageNet

__all__ = [
    "AnyData", "Catalogue", "DataSpec", "Dataset", "Figures", "Source",
    "default_root", "draw", "load", "order",
]  # fmt: skip

AnyData = Annotated[
    CIFAR10 | CIFAR100 | STL10 | TinyImageNet | Digits | Folder | ImageNet, Field(discriminator="name")
]


def default_root() -> Path:
    """Where data sets lie: $RAYKD_DATA, or ~/.cache/raykd/data."""
    return Path(os.environ.get("RAYKD_DATA") or Path.home() / ".cache/raykd/data")


def load(spec: DataSpec, root: Path, download: bool) -> Dataset[Any]:
    """A data set, ready for a trial. BadInput when its files are missing or damaged and not to be fetched."""
    return prepare(spec, spec.read(root, download))
