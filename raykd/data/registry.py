"""The data sets by name: what a recipe can name, where their files lie, and how one is loaded."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from raykd import plugins
from raykd.data._base import Dataset, DataSpec, split_dataset
from raykd.data.cifar10 import CIFAR10
from raykd.data.cifar100 import CIFAR100
from raykd.data.digits import Digits
from raykd.data.folder import ImageFolder
from raykd.data.imagenet import ImageNet
from raykd.data.stl10 import STL10
from raykd.data.tiny_imagenet import TinyImageNet
from raykd.paths import get_default_folder
from raykd.spec import ByTag

DATASETS: Mapping[str, type[DataSpec]] = MappingProxyType({
    "cifar10": CIFAR10, "cifar100": CIFAR100, "stl10": STL10, "tiny_imagenet": TinyImageNet, "digits": Digits,
    "folder": ImageFolder, "imagenet": ImageNet,
})  # fmt: skip


def names() -> tuple[str, ...]:
    """Returns the names of all data sets. UserError when plugins offer one that is taken."""
    return (*DATASETS, *plugins.list_names("data", DATASETS))


def get_spec(name: str) -> type[DataSpec]:
    """Returns the settings' class of a data set of `names`. UserError when a plugin's is none."""
    spec: type[DataSpec] = DATASETS.get(name) or plugins.load_spec("data", name, DataSpec, "name")
    return spec


AnyData = Annotated[DataSpec, ByTag("name", names, get_spec)]


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
