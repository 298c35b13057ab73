"""Losses that are not finite: kept from the weights at once, told as soon as the host looks."""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from raykd.maths.gather import num_ranks

LOOK = 100  # steps between two looks of the host at a GPU's losses


class Diverged(RuntimeError):
    """A loss term is no longer finite. Names the term, its value, the epoch and the step."""


class Watch:
    """A loss that is not finite keeps the optimiser from this step and all that follow; then Diverged.

    A GPU does the first by itself; the host looks only now and then, since each look waits for the GPU.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, steps: int) -> None:
        self.every = 1 if device.type == "cpu" else LOOK
        self._steps = steps  # of an epoch
        self._seen: list[tuple[int, Tensor]] = []  # of steps since the last look: the terms and their sum
        self._bad = torch.zeros((), device=device)  # 1 once a loss was not finite
        optimizer.found_inf = self._bad  # type: ignore[attr-defined]  # the fused step then leaves all as it is

    def looks(self, step: int) -> bool:
        """Whether the host looks at this step, so that what it finds good is good."""
        return (step + 1) % self.every == 0 or step + 1 == self._steps

    def loss(self, loss: Tensor, terms: dict[str, Tensor], epoch: int, step: int) -> None:
        """Before the backward pass of a loss, the weighted sum of its terms."""
        self._seen.append((step, torch.stack([*terms.values(), loss]).detach()))
        torch.maximum(self._bad, (~loss.detach().isfinite()).float(), out=self._bad)
        if num_ranks() > 1:
            dist.all_reduce(self._bad, dist.ReduceOp.MAX)
        if self.looks(step):
            seen, self._seen = self._seen, []
            if self._bad.item():
                self._diverged(seen, [*terms, "their sum"], epoch)

    def _diverged(self, seen: list[tuple[int, Tensor]], names: list[str], epoch: int) -> None:
        """Every rank says the same: the terms that were not finite, of the first step where one was."""
        told: list[list[tuple[int, str]]] = [[]]
        for step, values in seen:
            bad = [f"{n} = {v}" for n, v in zip(names, values.tolist(), strict=True) if not math.isfinite(v)]
            if bad:
                told[0].append((step, ", ".join(bad[:-1] or bad)))
        if num_ranks() > 1:
            told = [*told] * num_ranks()
            dist.all_gather_object(told, told[dist.get_rank()])
        step, named = min(one for rank in told for one in rank)
        raise Diverged(f"loss term not finite: {named} (epoch {epoch}, step {step + 1} of {self._steps})")
