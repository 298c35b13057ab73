"""Views: augmented images as batch tensor operations on the device. A view is a function of (image, view id).

Legend: n images of a batch, r rotations, p padding. A view id counts (row, column, flip) of a random crop
from the padded image, 0 <= id < (2p + 1)^2 * (2 if flips else 1); the k-th of r rotated views has its own id
and is turned by k * 90 degrees.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.data._base import DataSpec, Triple


class Views:
    """The training images of a data set on a device, ready to be looked at."""

    def __init__(
        self, pixels: Tensor, spec: DataSpec, mean: Triple, std: Triple, device: torch.device
    ) -> None:
        p = spec.padding
        self.device = device
        self._size, self._flip, self.rotations = pixels.shape[1], spec.flip, spec.rotations
        self._offsets = 2 * p + 1
        padded = F.pad(pixels, (0, 0, p, p, p, p)) if p else pixels
        self._rows = padded.to(device).flatten(0, 2)  # [images * side * side, 3]: one row a pixel
        self._side = self._size + 2 * p
        self._range = torch.arange(self._size, device=device)
        self._shift = torch.tensor(mean, device=device) * 255
        self._scale = 1 / (torch.tensor(std, device=device) * 255)

    @property
    def num_views(self) -> int:
        """Distinct view ids of one image at one rotation."""
        return self._offsets**2 * (2 if self._flip else 1)

    def order(self, epoch: int, seed: int, count: int) -> Tensor:
        """A permutation [count] for an epoch, the same on every rank and device."""
        return torch.randperm(count, generator=_generator(seed, epoch, 0))

    def draw(self, epoch: int, seed: int, count: int) -> Tensor:
        """View ids [count * r] for an epoch, image-major, the same on every rank and device."""
        size = (count * self.rotations,)
        return torch.randint(self.num_views, size, generator=_generator(seed, epoch, 1))

    def batch(self, positions: Tensor, views: Tensor) -> Tensor:
        """Images at positions [n] seen as views [n * r] -> [n * r, 3, size, size], float32, normalised.

        Rows of one image are adjacent, turned by 0, 90, 180, 270 degrees. channels_last in memory.
        """
        images = positions.repeat_interleave(self.rotations)
        flip = views % 2 if self._flip else torch.zeros_like(views)
        crop = views // 2 if self._flip else views
        row, column = crop // self._offsets, crop % self._offsets
        ys = row[:, None] + self._range
        xs = column[:, None] + torch.where(flip[:, None] == 1, self._range.flip(0), self._range)
        cells = (images[:, None] * self._side + ys)[:, :, None] * self._side + xs[:, None, :]
        seen = self._rows.index_select(0, cells.flatten()).view(*cells.shape, 3)  # [n * r, size, size, 3]
        if self.rotations > 1:
            turned = [torch.rot90(seen[k :: self.rotations], k, (1, 2)) for k in range(self.rotations)]
            seen = torch.stack(turned, dim=1).flatten(0, 1)
        return self._normalised(seen)

    def plain(self, pixels: Tensor) -> Tensor:
        """Images [n, size, size, 3] as they are -> [n, 3, size, size], float32, normalised."""
        return self._normalised(pixels.to(self.device))

    def _normalised(self, pixels: Tensor) -> Tensor:
        return ((pixels - self._shift) * self._scale).permute(0, 3, 1, 2)


def _generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 100_003 + epoch) * 2 + stream)
