"""Batch norm whose statistics are those of all ranks' rows, for the heads of methods.

torch.nn.SyncBatchNorm does the same on GPUs only. There are no running statistics: a method's heads see
training batches and nothing else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.maths.gather import gather, num_ranks

EPSILON = 1e-5  # torch's default


class JoinedBatchNorm(nn.Module):
    """[n, channels, h, w] -> the same shape, mean 0 and variance 1 over the joined batch, then affine."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if num_ranks() == 1:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=EPSILON)
        centred = x - _joined_mean(x)
        scaled = centred * (_joined_mean(centred.square()) + EPSILON).rsqrt()
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


def _joined_mean(x: Tensor) -> Tensor:
    """The mean of each channel over all ranks. [n, channels, h, w] -> [channels, 1, 1]."""
    return gather(x.mean(dim=(0, 2, 3))[None]).mean(dim=0)[:, None, None]
