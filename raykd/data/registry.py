"""The data sets by name: what a recipe can name, where their files lie, and how one is loaded."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from raykd.data._base import Dataset, DataSpec, split_dataset
from raykd.data.cifar10 import CIFAR10
from raykd.data.cifar100 import CIFAR100
from raykd.data.digits import Digits
from raykd.data.folder import ImageFolder
from raykd.data.imagenet import ImageNet
from raykd.data.stl10 import STL10
from raykd.data.tiny_imagenet import TinyImageNet
from raykd.paths import get_default_folder

AnyData = Annotated[
    CIFAR10 | CIFAR100 | STL10 | TinyImageNet | Digits | ImageFolder | ImageNet, Field(discriminator="name")
]


def default_root() -> Path:
    """Returns the folder where data sets lie: $RAYKD_DATA, or ~/.cache/raykd/data."""
    return get_default_folder("RAYKD_DATA", "data")


def load(spec: DataSpec, root: Path, download: bool) -> Dataset[Any]:
    """Returns a data set, ready for a trial.

    Raises:
        UserError: Its files are missing or damaged, and not to be fetched.
        ValueError: The settings ask for more images than there are.
    """
    return split_dataset(spec, spec.read(root, download))
