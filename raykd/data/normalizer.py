"""From pixels to what a net sees, on the device: turned, normalised, gathered into a Batch."""

import torch
from torch import Tensor

from raykd.batch import Batch, Triple


class Normalizer:
    """The last steps that all images share. Legend as in _base.py."""

    def __init__(self, labels: Tensor, mean: Triple, std: Triple, device: torch.device) -> None:
        self.device = device
        self._labels = labels.to(device)  # of the training images
        self._shift = -torch.tensor(mean, device=device) / torch.tensor(std, device=device)
        self._scale = 1 / (torch.tensor(std, device=device) * 255)

    def make_batch(
        self, pixels: Tensor, positions: Tensor, view_ids: Tensor, row: Tensor | None = None
    ) -> Batch:
        """Returns pixels [n * r, size, size, 3] of training images at positions [n], by view ids [n, r]."""
        rotations = view_ids.shape[1]
        index = positions.repeat_interleave(rotations)
        if rotations > 1:
            rotated = [torch.rot90(pixels[k::rotations], k, (1, 2)) for k in range(rotations)]
            pixels = torch.stack(rotated, dim=1).flatten(0, 1)
        return Batch(self.normalize(pixels), self._labels[index], index, view_ids.flatten(), row)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Returns [n, size, size, 3], uint8, as [n, 3, size, size], float32, channels_last in memory."""
        width = pixels.shape[2]
        rows = pixels.flatten(2).float()  # whole rows of an image: a last axis of 3 is slow
        normalized = torch.addcmul(self._shift.repeat(width), rows, self._scale.repeat(width))
        return normalized.view(pixels.shape).permute(0, 3, 1, 2)
