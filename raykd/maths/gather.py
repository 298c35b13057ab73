"""The rows of all ranks together: what makes in-batch losses the same on 2 ranks as in 1 process.

Under DDP a rank's loss is the mean over its own rows, and gradients are averaged over ranks. The mean of
the ranks' losses is then the loss of the global batch, and the backward pass here sums every rank's
gradient of these rows, so that the averaged gradients are those of the global batch as well. Every rank
must bring the same number of rows.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def num_ranks() -> int:
    """1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_gather(x: Tensor) -> Tensor:
    """This rank's [n, ...] -> all ranks' [ranks * n, ...] in order, with gradient; x itself on one rank."""
    if num_ranks() == 1:
        return x
    gathered: Tensor = _AllGather.apply(x)
    return gathered


def rank_offset(x: Tensor) -> int:
    """The row of all_gather(x) at which this rank's rows begin."""
    return dist.get_rank() * len(x) if num_ranks() > 1 else 0


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(num_ranks())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(num_ranks())[dist.get_rank()]
