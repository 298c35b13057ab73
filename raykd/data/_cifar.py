"""What CIFAR-10 and CIFAR-100 share: Python pickles with official MD5s, as torchvision reads them."""

import pickle
from pathlib import Path
from typing import Any

import torch

from raykd.data._base import Raw, Triple
from raykd.data.views import Pixels
from raykd.errors import BadInput


def read(official: Any, root: Path, download: bool, mean: Triple, std: Triple) -> Raw[Pixels]:
    """The set of a torchvision class. Nothing is unpickled whose MD5 is not the official one."""
    import torchvision  # here: it takes seconds, and other data sets need it not

    expected = dict(
        [*official.train_list, *official.test_list, (official.meta["filename"], official.meta["md5"])]
    )
    files = [root / official.base_folder / name for name in expected]
    missing = [file for file in files if not file.is_file()]
    if missing and not download:
        layout = f"{official.base_folder}/{', '.join(expected)}"
        raise BadInput(
            [
                f"data: {missing[0]}: no such file. Expected under {root}: {layout}, as the official "
                f"archive has them; --download fetches it, --data names another folder"
            ]
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
        name = official.__name__
        raise BadInput([f"data: {name} could not be fetched into {root} ({error})"]) from None
    return Raw(tuple(train.classes), 32, _part(train), _part(test), mean, std)


def _part(part: Any) -> Pixels:
    return Pixels(torch.from_numpy(part.data.copy()), torch.tensor(part.targets, dtype=torch.int64))
