"""One step of the optimiser: a batch in micro-batches, weighted losses, their gradients, the learning rates.

Under torch.distributed the ranks share the gradients after the last micro-batch.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raykd.batch import Batch
from raykd.clock import Clock, Moment
from raykd.maths.foreach import add_to_each, clone_each
from raykd.maths.gather import num_ranks
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import Teacher
from raykd.training.distiller import Distiller
from raykd.training.graphs import Graphs
from raykd.training.nonfinite import NonFiniteGuard


class OptimizerStep:
    """Takes steps of a distiller's training on a device."""

    def __init__(
        self,
        recipe: Recipe,
        distiller: Distiller,
        teacher: Teacher,
        device: torch.device,
        steps_per_epoch: int,
    ) -> None:
        self._ddp: DistributedDataParallel | None = None
        if num_ranks() > 1:
            self._ddp = DistributedDataParallel(
                distiller, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
        self._forward: nn.Module = self._ddp or distiller
        self._recipe, self._distiller, self._teacher, self._device = recipe, distiller, teacher, device
        self._steps_per_epoch = steps_per_epoch
        self._learning_rates = distiller.method.learning_rates
        parts = {name: distiller.method.get_submodule(name) for name in self._learning_rates}
        self.optimizer = recipe.optimizer.make(distiller, parts)
        self.nonfinite_guard = NonFiniteGuard(self.optimizer, device, steps_per_epoch)
        self.loss_weights = recipe.loss_weights()
        self.clock = Clock(device)
        self._weights_on_device: dict[tuple[float, ...], Tensor] = {}
        self._teacher_moments: list[tuple[Moment, Moment]] = []  # before and after its outputs
        self._num_micro_batches = recipe.optimizer.accumulate
        self._names: list[str] = []  # of the loss's terms
        self._graphed: Callable[..., tuple[Tensor, Tensor, list[Tensor | None]]] | None = None
        self._parameters = list(distiller.parameters())

    def use_graphs(self, graphs: Graphs) -> None:
        """Has micro-batches replayed from now on."""
        changed = [*self._distiller.buffers(), self.nonfinite_guard.nonfinite]
        self._graphed = graphs.wrap("step", self._run_anew, changed)

    def take(self, epoch: int, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Takes a step (0-based) of an epoch (1-based) with the next micro-batches; returns the raw terms.

        The gradient of a batch is the mean of its micro-batches' gradients.
        """
        self.optimizer.zero_grad(set_to_none=True)
        means: list[Tensor] = []  # each micro-batch's part of the terms' means
        progress = (epoch - 1 + step / self._steps_per_epoch) / self._recipe.epochs
        on_device = torch.full((), progress, dtype=torch.float64, device=self._device)
        for micro_batch in range(1, self._num_micro_batches + 1):
            batch = next(batches)
            began = self.clock.now()
            teacher_outputs = self._teacher.get_outputs(batch)
            self._teacher_moments.append((began, self.clock.now()))
            inputs = replace(batch, row=None), teacher_outputs, on_device, self._distiller.prepare(batch)
            is_last = micro_batch == self._num_micro_batches  # then the ranks share their gradients
            with nullcontext() if is_last or self._ddp is None else self._ddp.no_sync():
                raw, loss = self._run(*inputs) if self._graphed is None else self._replay(*inputs)
            self.nonfinite_guard.add_loss(raw, loss, step)
            means.append(self._divide(raw))
        self.nonfinite_guard.check(self._names, epoch, step)
        self._set_learning_rates(self.compute_lr(epoch, step), progress)
        if self._recipe.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.optimizer.clip_norm)
        self.optimizer.step()
        return dict(zip(self._names, sum(means[1:], means[0]).unbind(), strict=True))

    def _run(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """The raw terms [k] and the loss of a micro-batch, inputs of the distiller; gradients are added."""
        terms = self._forward(*inputs)
        self._names = list(terms)
        values, weights = torch.stack(list(terms.values())), self._weigh(self._names)
        raw = values.detach()
        loss = (raw * weights).sum()
        self.nonfinite_guard.mark(loss)
        torch.autograd.backward(values, self._divide(weights))  # the weights are the loss's gradient
        return raw, loss

    def _replay(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """As `_run`. A replay overwrites the gradients of the one before, which are kept beside."""
        assert self._graphed is not None
        before = [p.grad for p in self._parameters if p.grad is not None]
        sums = clone_each(before)
        raw, loss, gradients = self._graphed(*inputs)
        if sums:
            add_to_each(sums, [gradient for gradient in gradients if gradient is not None])
        remaining = iter(sums)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient if gradient is None else next(remaining, gradient)
        return raw.clone(), loss.clone()

    def _run_anew(self, *inputs: Any) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """As `_run`, but gradients are the micro-batch's alone, and returned in the parameters' order."""
        for parameter in self._parameters:
            parameter.grad = None
        return *self._run(*inputs), [parameter.grad for parameter in self._parameters]

    def take_teacher_times(self) -> list[float]:
        """Returns the seconds of each of the teacher's outputs since the last call, by the device's clock."""
        moments, self._teacher_moments = self._teacher_moments, []
        return [self.clock.seconds(began, ended) for began, ended in moments]

    def compute_lr(self, epoch: int, step: int) -> float:
        """Returns the recipe's learning rate of a step of an epoch."""
        step += (epoch - 1) * self._steps_per_epoch
        recipe = self._recipe
        return recipe.optimizer.compute_lr(recipe.schedule, step, self._steps_per_epoch, recipe.epochs)

    def _weigh(self, names: list[str]) -> Tensor:
        """The weights of the loss's terms [k], on the device, where they stay."""
        key = tuple(self.loss_weights[name] for name in names)
        if key not in self._weights_on_device:
            self._weights_on_device[key] = torch.tensor(key, device=self._device)
        return self._weights_on_device[key]

    def _divide(self, x: Tensor) -> Tensor:
        """A micro-batch's part of a step's mean."""
        return x if self._num_micro_batches == 1 else x / self._num_micro_batches

    def _set_learning_rates(self, lr: float, progress: float) -> None:
        """Those of this step. A part whose rate is 0 rests: its weights and momentum stay as they are."""
        for group in self.optimizer.param_groups:
            own_rate = self._learning_rates.get(group["part"])
            group["lr"] = lr if own_rate is None else own_rate(progress, lr)
            if group["lr"] == 0:
                for parameter in group["params"]:
                    parameter.grad = None
