"""From pixels to what a net sees, on the device: turned, normalised, gathered into a Batch."""

import torch
from torch import Tensor

from raykd.data._base import Triple
from raykd.step import Batch


class Look:
    """The last steps that all images share. Legend as in _base.py."""

    def __init__(self, labels: Tensor, mean: Triple, std: Triple, device: torch.device) -> None:
        self.device = device
        self._labels = labels.to(device)  # of the training images
        self._shift = torch.tensor(mean, device=device) * 255
        self._scale = 1 / (torch.tensor(std, device=device) * 255)

    def batch(self, seen: Tensor, positions: Tensor, views: Tensor) -> Batch:
        """Pixels [n * r, size, size, 3] of the views [n, r] of the training images at positions [n]."""
        rotations = views.shape[1]
        index = positions.repeat_interleave(rotations)
        if rotations > 1:
            turned = [torch.rot90(seen[k::rotations], k, (1, 2)) for k in range(rotations)]
            seen = torch.stack(turned, dim=1).flatten(0, 1)
        return Batch(self.normalised(seen), self._labels[index], index, views.flatten())

    def normalised(self, pixels: Tensor) -> Tensor:
        """[n, size, size, 3], uint8 -> [n, 3, size, size], float32, channels_last in memory."""
        return ((pixels - self._shift) * self._scale).permute(0, 3, 1, 2)
