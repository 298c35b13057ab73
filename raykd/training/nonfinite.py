"""Losses that are not finite: kept from the weights at once, raised as soon as the host checks."""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from raykd.maths.gather import num_ranks

CHECK_EVERY = 20  # steps between two checks of a GPU's losses by the host; a state can be written at one
StepLosses = tuple[int, Tensor, Tensor]  # the step, its terms [k], their sum


class NonFiniteLoss(RuntimeError):
    """A loss term is no longer finite. Names the term, its value, the epoch and the step."""


class NonFiniteGuard:
    """A loss that is not finite keeps the optimiser from this step and all that follow; then NonFiniteLoss.

    A GPU does the first by itself; the host checks only now and then, since each check waits for the GPU.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, steps_per_epoch: int) -> None:
        self.check_every = 1 if device.type == "cpu" else CHECK_EVERY
        self._steps_per_epoch = steps_per_epoch
        self._unchecked: list[StepLosses] = []  # since the last check
        self.nonfinite = torch.zeros((), dtype=torch.float32, device=device)  # 1 once a loss was not finite
        # the attribute by which GradScaler stops torch's fused steps; nothing public does it without the host
        optimizer.found_inf = self.nonfinite  # type: ignore[attr-defined]

    def checks(self, step: int) -> bool:
        """Returns whether the host checks after this step (0-based): all so far are then known finite."""
        return (step + 1) % self.check_every == 0 or step + 1 == self._steps_per_epoch

    def mark(self, loss: Tensor) -> None:
        """Keeps the optimiser from a micro-batch's loss [], without gradient, on the device."""
        # what is not finite is NaN less itself, which counts as true
        torch.logical_or(self.nonfinite, loss - loss, out=self.nonfinite)

    def add_loss(self, values: Tensor, loss: Tensor, step: int) -> None:
        """Takes the raw terms [k] of a micro-batch and their weighted sum, to be named if it is to blame."""
        self._unchecked.append((step, values, loss))

    def check(self, names: list[str], epoch: int, step: int) -> None:
        """Looks at a step's losses, after its last micro-batch and before the optimiser.

        Raises:
            NonFiniteLoss: On every rank, when the host checks and a loss since the last check was not finite.
        """
        if num_ranks() > 1:
            dist.all_reduce(self.nonfinite, dist.ReduceOp.MAX)
        if self.checks(step):
            unchecked, self._unchecked = self._unchecked, []
            if self.nonfinite.item():
                self._raise(unchecked, [*names, "their sum"], epoch)

    def _raise(self, unchecked: list[StepLosses], names: list[str], epoch: int) -> None:
        """Every rank says the same: the terms that were not finite, of the first step where one was."""
        ranks: list[list[tuple[int, str]]] = [[]]
        for step, values, loss in unchecked:
            numbers = [*values.tolist(), loss.item()]
            nonfinite = [f"{n} = {v}" for n, v in zip(names, numbers, strict=True) if not math.isfinite(v)]
            if nonfinite:
                ranks[0].append((step, ", ".join(nonfinite[:-1] or nonfinite)))
        if num_ranks() > 1:
            ranks = [*ranks] * num_ranks()
            dist.all_gather_object(ranks, ranks[dist.get_rank()])
        step, terms = min(step_and_terms for rank in ranks for step_and_terms in rank)
        place = f"epoch {epoch}, step {step + 1} of {self._steps_per_epoch}"
        raise NonFiniteLoss(f"loss term not finite: {terms} ({place})")
