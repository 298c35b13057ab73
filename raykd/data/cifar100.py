"""CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 images of 32 x 32 in 100 classes, as torchvision reads it."""

from pathlib import Path
from typing import Literal

from raykd.data import _cifar
from raykd.data._base import DatasetInfo, RawDataset
from raykd.data.in_memory import InMemorySpec, Pixels


class CIFAR100(InMemorySpec):
    """The settings of CIFAR-100."""

    name: Literal["cifar100"] = "cifar100"

    def published_info(self) -> DatasetInfo | None:
        """Returns the official numbers."""
        return DatasetInfo(100, 32, 50_000)

    def read(self, root: Path, download: bool) -> RawDataset[Pixels]:
        """Returns the official images, fetched if they are not there and `download`."""
        from torchvision.datasets import CIFAR100 as Official  # here: it takes seconds

        # RepDistiller's constants
        mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
        return _cifar.read_cifar(Official, root, download, mean, std)
