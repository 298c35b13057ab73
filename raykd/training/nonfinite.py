"""Losses that are not finite: kept from the weights at once, raised as soon as the host checks."""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from raykd.maths.gather import num_ranks

CHECK_EVERY = 100  # steps between two checks of a GPU's losses by the host


class NonFiniteLoss(RuntimeError):
    """A loss term is no longer finite. Names the term, its value, the epoch and the step."""


class NonFiniteGuard:
    """A loss that is not finite keeps the optimiser from this step and all that follow; then NonFiniteLoss.

    A GPU does the first by itself; the host checks only now and then, since each check waits for the GPU.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, steps_per_epoch: int) -> None:
        self.check_every = 1 if device.type == "cpu" else CHECK_EVERY
        self._steps_per_epoch = steps_per_epoch
        self._unchecked: list[tuple[int, Tensor]] = []  # (step, terms and their sum) since the last check
        self._nonfinite = torch.zeros((), device=device)  # 1 once a loss was not finite
        # the attribute by which GradScaler stops torch's fused steps; nothing public does it without the host
        optimizer.found_inf = self._nonfinite  # type: ignore[attr-defined]

    def checks(self, step: int) -> bool:
        """Returns whether the host checks after this step (0-based): all so far are then known finite."""
        return (step + 1) % self.check_every == 0 or step + 1 == self._steps_per_epoch

    def add_loss(self, loss: Tensor, terms: dict[str, Tensor], epoch: int, step: int) -> None:
        """Takes a loss, the weighted sum of its raw terms, before its backward pass.

        Raises:
            NonFiniteLoss: On every rank, when the host checks and a loss since the last check was not finite.
        """
        self._unchecked.append((step, torch.stack([*terms.values(), loss]).detach()))
        torch.maximum(self._nonfinite, (~loss.detach().isfinite()).float(), out=self._nonfinite)
        if num_ranks() > 1:
            dist.all_reduce(self._nonfinite, dist.ReduceOp.MAX)
        if self.checks(step):
            unchecked, self._unchecked = self._unchecked, []
            if self._nonfinite.item():
                self._raise(unchecked, [*terms, "their sum"], epoch)

    def _raise(self, unchecked: list[tuple[int, Tensor]], names: list[str], epoch: int) -> None:
        """Every rank says the same: the terms that were not finite, of the first step where one was."""
        ranks: list[list[tuple[int, str]]] = [[]]
        for step, values in unchecked:
            nonfinite = [
                f"{n} = {v}" for n, v in zip(names, values.tolist(), strict=True) if not math.isfinite(v)
            ]
            if nonfinite:
                ranks[0].append((step, ", ".join(nonfinite[:-1] or nonfinite)))
        if num_ranks() > 1:
            ranks = [*ranks] * num_ranks()
            dist.all_gather_object(ranks, ranks[dist.get_rank()])
        step, terms = min(step_and_terms for rank in ranks for step_and_terms in rank)
        place = f"epoch {epoch}, step {step + 1} of {self._steps_per_epoch}"
        raise NonFiniteLoss(f"loss term not finite: {terms} ({place})")
