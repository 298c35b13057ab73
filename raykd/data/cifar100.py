"""CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 images of 32 x 32 in 100 classes, as torchvision reads it."""

import pickle
from pathlib import Path
from typing import Any, Literal

import torch

from raykd.data._base import Figures, Raw
from raykd.data.views import InMemory, Pixels
from raykd.mistakes import BadInput

LAYOUT = "cifar-100-python/train, test and meta"


class CIFAR100(InMemory):
    name: Literal["cifar100"] = "cifar100"

    def known(self) -> Figures | None:
        return Figures(100, 32, 50_000)

    def read(self, root: Path, download: bool) -> Raw[Pixels]:
        import torchvision  # here: it takes seconds, and other data sets need it not

        official = torchvision.datasets.CIFAR100
        files = [root / official.base_folder / name for name in ("train", "test", "meta")]
        missing = [file for file in files if not file.is_file()]
        if missing and not download:
            raise BadInput(
                [
                    f"data: {missing[0]}: no such file. Expected under {root}: {LAYOUT}, as the official "
                    f"archive has them; --download fetches it, --data names another folder"
                ]
            )
        expected = dict(
            [*official.train_list, *official.test_list, (official.meta["filename"], official.meta["md5"])]
        )
        for file in set(files) - set(missing):
            if not torchvision.datasets.utils.check_integrity(str(file), expected[file.name]):
                raise BadInput(
                    [f"data: {file}: damaged ({file.stat().st_size:,} bytes, wrong MD5); fetch it anew"]
                )
        try:
            train = official(str(root), train=True, download=bool(missing))
            test = official(str(root), train=False)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise BadInput([f"data: CIFAR-100 could not be fetched into {root} ({error})"]) from None
        # RepDistiller's constants
        mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
        return Raw(tuple(train.classes), 32, _part(train), _part(test), mean, std)


def _part(part: Any) -> Pixels:
    return Pixels(torch.from_numpy(part.data.copy()), torch.tensor(part.targets, dtype=torch.int64))
