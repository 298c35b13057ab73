"""The exponential moving average of a net's weights and batch-norm statistics: what is evaluated and kept."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """The average of a net over the steps of a training; it begins as a copy."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False)
        self._decay, self._tensors = decay, (_list_float_tensors(self.net), _list_float_tensors(net))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after a step (0-based, of the whole training); the decay warms up as t/(9+t)."""
        decay = min(self._decay, step / (9 + step))
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update(*self._tensors, step)


def _list_float_tensors(net: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()]
