"""Digits: scikit-learn's 1,797 real handwritten digits of 8 x 8 pixels, resized to 32 x 32 x 3.

Its file is read without importing it, which would take every process of a study more than a second.
"""

from importlib.metadata import distribution
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from raykd.data._base import DatasetInfo, RawDataset, stratified_split
from raykd.data.in_memory import InMemorySpec, Pixels

SIZE = 32
TEST_IMAGES = 360
TEST_SEED = 1797


class Digits(InMemorySpec):
    """The data set that comes with scikit-learn: no download. A flipped digit is another digit: no flips."""

    name: Literal["digits"] = "digits"
    flip: bool = False

    def published_info(self) -> DatasetInfo | None:
        """Returns the numbers of scikit-learn's file."""
        return DatasetInfo(10, SIZE, 1797 - TEST_IMAGES)

    def read(self, root: Path, download: bool) -> RawDataset[Pixels]:
        """Returns the digits; 360 of them, the same for every setting, are the test set."""
        path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        digits = torch.from_numpy(np.loadtxt(str(path), delimiter=",", dtype=np.uint8))
        small = digits[:, :64].view(-1, 1, 8, 8).float() * (255 / 16)
        large = F.interpolate(small, size=SIZE, mode="bilinear", align_corners=False).round().clamp(0, 255)
        pixels = large.to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()
        labels = digits[:, 64].long()
        train, test = stratified_split(labels, TEST_IMAGES / len(labels), TEST_SEED)
        grey = pixels[train].numpy().astype(np.float64) / 255
        mean, std = float(grey.mean()), float(grey.std())
        return RawDataset(
            tuple(str(digit) for digit in range(10)),
            SIZE,
            Pixels(pixels[train], labels[train]),
            Pixels(pixels[test], labels[test]),
            (mean, mean, mean),
            (std, std, std),
        )
