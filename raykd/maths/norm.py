"""Batch norm whose statistics are those of all ranks' rows, for the heads of methods.

torch.nn.SyncBatchNorm does the same on GPUs only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.maths.gather import gather, num_ranks

EPSILON, MOMENTUM = 1e-5, 0.1  # torch's defaults


class JoinedBatchNorm(nn.Module):
    """[n, channels, h, w] -> the same shape: mean 0 and variance 1 over the joined batch, then affine.

    In evaluation the running statistics serve, as in torch.nn.BatchNorm2d; only a deployed head needs them.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if num_ranks() == 1 or not self.training:
            running = (self.running_mean, self.running_var)
            return F.batch_norm(x, *running, self.weight, self.bias, self.training, MOMENTUM, EPSILON)
        mean = _joined_mean(x)
        centred = x - mean
        variance = _joined_mean(centred.square())
        with torch.no_grad():
            rows = x.numel() // x.shape[1] * num_ranks()
            self.running_mean.lerp_(mean.flatten(), MOMENTUM)
            self.running_var.lerp_(variance.flatten() * rows / max(1, rows - 1), MOMENTUM)
        return centred * (variance + EPSILON).rsqrt() * self.weight[:, None, None] + self.bias[:, None, None]


def _joined_mean(x: Tensor) -> Tensor:
    """The mean of each channel over all ranks. [n, channels, h, w] -> [channels, 1, 1]."""
    return gather(x.mean(dim=(0, 2, 3))[None]).mean(dim=0)[:, None, None]
