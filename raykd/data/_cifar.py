"""What CIFAR-10 and CIFAR-100 share: Python pickles with official MD5s, as torchvision reads them."""

import pickle
from pathlib import Path
from typing import Any

import torch

from raykd.batch import Triple
from raykd.data._base import RawDataset
from raykd.data.in_memory import Pixels
from raykd.errors import UserError


def read_cifar(official: Any, root: Path, download: bool, mean: Triple, std: Triple) -> RawDataset[Pixels]:
    """Returns the data set of a torchvision class, fetched if it is not there and `download`.

    Raises:
        UserError: A file is missing, or its MD5 is not the official one: it is not unpickled then.
    """
    import torchvision  # here: it takes seconds, and other data sets need it not

    md5_by_name = dict(
        [*official.train_list, *official.test_list, (official.meta["filename"], official.meta["md5"])]
    )
    files = [root / official.base_folder / name for name in md5_by_name]
    missing = [file for file in files if not file.is_file()]
    if missing and not download:
        layout = f"{official.base_folder}/{', '.join(md5_by_name)}"
        raise UserError(
            [
                f"data: {missing[0]}: no such file. Expected under {root}: {layout}, as the official "
                f"archive has them; --download fetches it, --data names another folder"
            ]
        )
    for file in set(files) - set(missing):
        if not torchvision.datasets.utils.check_integrity(str(file), md5_by_name[file.name]):
            raise UserError(
                [f"data: {file}: damaged ({file.stat().st_size:,} bytes, wrong MD5); fetch it anew"]
            )
    try:
        train = official(str(root), train=True, download=bool(missing))
        test = official(str(root), train=False)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        name = official.__name__
        raise UserError([f"data: {name} could not be fetched into {root} ({error})"]) from None
    return RawDataset(tuple(train.classes), 32, _make_pixels(train), _make_pixels(test), mean, std)


def _make_pixels(official_part: Any) -> Pixels:
    return Pixels(
        torch.from_numpy(official_part.data.copy()), torch.tensor(official_part.targets, dtype=torch.int64)
    )
