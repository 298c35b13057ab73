"""Data sets, a file each: CIFAR-100, digits, any folder of images."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from raykd.data._base import Dataset, DataSpec, Part, prepare
from raykd.data.cifar100 import CIFAR100
from raykd.data.digits import Digits
from raykd.data.folder import Folder

__all__ = ["AnyData", "DataSpec", "Dataset", "Part", "default_root", "load"]

AnyData = Annotated[CIFAR100 | Digits | Folder, Field(discriminator="name")]


def default_root() -> Path:
    """Where data sets lie: $RAYKD_DATA, or ~/.cache/raykd/data."""
    return Path(os.environ.get("RAYKD_DATA") or Path.home() / ".cache/raykd/data")


def load(spec: DataSpec, root: Path, download: bool) -> Dataset:
    """A data set, ready for a trial. BadInput when its files are missing or damaged and not to be fetched."""
    return prepare(spec, spec.read(root, download))
