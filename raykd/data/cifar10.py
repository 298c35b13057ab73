"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images of 32 x 32 in 10 classes, as torchvision reads it."""

from pathlib import Path
from typing import Literal

from raykd.data import _cifar
from raykd.data._base import DatasetInfo, RawDataset
from raykd.data.in_memory import InMemorySpec, Pixels


class CIFAR10(InMemorySpec):
    """The settings of CIFAR-10."""

    name: Literal["cifar10"] = "cifar10"

    def published_info(self) -> DatasetInfo | None:
        """Returns the official numbers."""
        return DatasetInfo(10, 32, 50_000)

    def read(self, root: Path, download: bool) -> RawDataset[Pixels]:
        """Returns the official images, fetched if they are not there and `download`."""
        from torchvision.datasets import CIFAR10 as Official  # here: it takes seconds

        # of the training images
        mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        return _cifar.read_cifar(Official, root, download, mean, std)
