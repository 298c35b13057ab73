"""The clothing set of real photographs, streamed."""

from pathlib import Path
from typing import Any

import torch

from raykd import data
from raykd.data.stream import StreamedSource

CPU = torch.device("cpu")
SIZE = 64


def photograph_settings(**settings: Any) -> data.ImageNet:
    """Settings of the clothing set, streamed."""
    base = {
        "path": "clothing",
        "size": SIZE,
        "test": "validation",
        "images": 60,
        "holdout": 0.2,
        "loaders": 0,
    }
    return data.ImageNet(**(base | settings))


def make_source(spec: data.ImageNet, root: Path) -> tuple[data.Dataset[Any], StreamedSource]:
    dataset = data.load(spec, root, False)
    return dataset, spec.make_source(dataset, CPU)
