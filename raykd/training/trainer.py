"""Train one student: epochs, held-out accuracy, a state that resumes exactly. Knows no Ray.

trainer = Trainer(recipe, dataset, teacher, device)
for metrics in trainer.run():
    ...                        # report the metrics; torch.save(trainer.state_dict())

Several workers: each batch is split into workers * accumulate micro-batches of equal size, and a worker takes
`accumulate` neighbours, one after another. Which images an epoch shows, and in which batches, depends on
the recipe alone: a state written by some workers goes on with any other number of them.
"""

import copy
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from raykd import models
from raykd.batch import Batch
from raykd.clock import Clock, Moment
from raykd.data import Dataset, draw_view_ids, epoch_permutation
from raykd.maths.norm import convert_sync_batchnorm, take_batch_counters
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import CacheStats, Teacher
from raykd.training.distiller import Distiller
from raykd.training.evaluation import measure_accuracy, set_numerics, uses_bf16
from raykd.training.metrics import EpochMetrics, EpochTotals, all_reduce_mean, gather_unique
from raykd.training.nonfinite import NonFiniteGuard

LARGE_BANK_BYTES = 64 * 2**20  # a larger bank is not written into every checkpoint


class Trainer:
    """The training of one student. Under torch.distributed each rank takes its share of every batch.

    `start`: the weights that the student begins with, less those of a new head; None: random ones.

    Raises:
        ValueError: The method cannot serve the nets, or the batch cannot be divided among the ranks.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset[Any],
        teacher: Teacher,
        device: torch.device,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        set_numerics(device, uses_bf16(recipe, device))
        torch.manual_seed(recipe.seed)
        self.recipe, self.dataset, self.teacher, self.device = recipe, dataset, teacher, device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.num_epochs_done, self.partial_epoch = 0, EpochTotals()
        self.source = recipe.data.make_source(dataset, device)
        self.labels = dataset.train.labels.to(device)
        self.distiller = Distiller(recipe, self.labels, len(dataset.classes), dataset.size, teacher.shapes)
        if start is not None:
            models.load_weights(self.distiller.student, start, recipe.student.head == "new")
        self.distiller.student.set_input_statistics(dataset.mean, dataset.std)
        if recipe.batch_norm == "synced" and self.world > 1:
            convert_sync_batchnorm(self.distiller)
        self.distiller.to(device).to(memory_format=torch.channels_last)
        self._batch_counters = take_batch_counters(self.distiller.student)
        self.distiller.bf16 = uses_bf16(recipe, device)
        self.learning_rates = self.distiller.method.learning_rates
        parts = {name: self.distiller.method.get_submodule(name) for name in self.learning_rates}
        self.optimizer = recipe.optimizer.make(self.distiller, parts)
        self.student = self.distiller.deployed_student()
        self.ema_student = copy.deepcopy(self.student).requires_grad_(False)
        self._ema_tensors = _float_tensors(self.ema_student), _float_tensors(self.student)
        self.loss_weights = recipe.loss_weights()
        self._weights_on_device: dict[tuple[float, ...], Tensor] = {}
        self._clock = Clock(device)
        self._teacher_moments: list[tuple[Moment, Moment]] = []  # before and after its outputs
        # the odd rest of an epoch is left out
        self.steps_per_epoch = len(self.labels) // recipe.optimizer.batch_size
        self.num_micro_batches = recipe.optimizer.accumulate
        self.nonfinite_guard = NonFiniteGuard(self.optimizer, device, self.steps_per_epoch)
        recipe.optimizer.check_batch_size(self.world, len(self.labels))
        self._ddp: DistributedDataParallel | None = None
        if self.world > 1:
            self._ddp = DistributedDataParallel(
                self.distiller, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
        self._forward: nn.Module = self._ddp or self.distiller

    def run(self) -> Iterator[EpochMetrics]:
        """Trains from where the state stands to the end of the budget; yields each epoch's metrics.

        Raises:
            NonFiniteLoss: A loss term is not finite; the weights are those before that step.
        """
        return (metrics for metrics in self.run_until(math.inf) if metrics is not None)

    def run_until(self, seconds: float) -> Iterator[EpochMetrics | None]:
        """As `run`, and yields None whenever so many seconds of an epoch have passed: time to save."""
        while self.num_epochs_done < self.recipe.epochs:
            yield from self.train_epoch(self.num_epochs_done + 1, seconds)
            metrics = self._compute_metrics(self.num_epochs_done + 1)
            self.num_epochs_done, self.partial_epoch = self.num_epochs_done + 1, EpochTotals()
            yield metrics

    def train_epoch(self, epoch: int, seconds: float) -> Iterator[None]:
        """Trains what is left of an epoch; yields None whenever so many seconds have passed."""
        self.distiller.train()
        began, cache_stats = time.perf_counter(), replace(self.teacher.cache_stats)
        batches = self.get_batches(epoch, self.partial_epoch.steps)
        for step in range(self.partial_epoch.steps, self.steps_per_epoch):
            self.partial_epoch.add_step(self.train_step(epoch, step, batches))
            if (
                step + 1 < self.steps_per_epoch
                and self.nonfinite_guard.checks(step)
                and self._is_past(began + seconds)
            ):
                self._add_interval(began, cache_stats)
                self._average_over_ranks()
                yield None
                began, cache_stats = time.perf_counter(), replace(self.teacher.cache_stats)
        self._add_interval(began, cache_stats)

    def _add_interval(self, began: float, cache_stats: CacheStats) -> None:
        teacher_seconds = self.take_teacher_seconds()  # waits for a GPU, whose steps are done then
        seconds = time.perf_counter() - began
        self.partial_epoch.add_interval(seconds, teacher_seconds, cache_stats, self.teacher.cache_stats)

    def take_teacher_seconds(self) -> float:
        """Returns the seconds that the teacher's outputs took since the last call, on the device's clock."""
        moments, self._teacher_moments = self._teacher_moments, []
        return sum(self._clock.seconds(began, ended) for began, ended in moments)

    def _is_past(self, moment: float) -> bool:
        """Whether the moment is over, by the first rank's clock: all pause after the same step."""
        is_past = time.perf_counter() >= moment
        if self.world == 1 or moment == math.inf:
            return is_past
        is_past_on_rank_0 = torch.tensor(float(is_past), device=self.device)
        dist.broadcast(is_past_on_rank_0, 0)
        return bool(is_past_on_rank_0)

    def _compute_metrics(self, epoch: int) -> EpochMetrics:
        """The metrics of an epoch whose steps are done."""
        began = time.perf_counter()
        self._average_over_ranks()
        accuracy, accuracy_raw = (
            (self.measure_accuracy(self.ema_student), self.measure_accuracy(self.student))
            if len(self.dataset.heldout.labels)
            else (None, None)
        )
        num_images = self.steps_per_epoch * self.recipe.optimizer.batch_size * self.recipe.data.rotations
        return EpochMetrics(
            epoch=epoch,
            accuracy=accuracy,
            accuracy_raw=accuracy_raw,
            lr=self._compute_lr(epoch, self.steps_per_epoch - 1),
            seconds=self.partial_epoch.seconds + time.perf_counter() - began,
            teacher_seconds=self.partial_epoch.teacher_seconds,
            teacher_hits=self.partial_epoch.teacher_hits,
            teacher_misses=self.partial_epoch.teacher_misses,
            teacher_seconds_saved=self.partial_epoch.teacher_seconds_saved,
            images_per_second=num_images / self.partial_epoch.seconds,
            terms=self.partial_epoch.mean_terms(),
        )

    def _compute_lr(self, epoch: int, step: int) -> float:
        step += (epoch - 1) * self.steps_per_epoch
        recipe = self.recipe
        return recipe.optimizer.compute_lr(recipe.schedule, step, self.steps_per_epoch, recipe.epochs)

    def train_step(self, epoch: int, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Takes one step of the optimiser; returns the raw terms.

        The gradient of a batch is the mean of its micro-batches' gradients.
        """
        self.optimizer.zero_grad(set_to_none=True)
        names: list[str] = []
        means: list[Tensor] = []  # each micro-batch's part of the terms' means
        progress = (epoch - 1 + step / self.steps_per_epoch) / self.recipe.epochs
        for micro_batch in range(1, self.num_micro_batches + 1):
            batch = next(batches)
            began = self._clock.now()
            teacher_outputs = self.teacher.get_outputs(batch)
            self._teacher_moments.append((began, self._clock.now()))
            is_last = micro_batch == self.num_micro_batches  # then the ranks share their gradients
            with nullcontext() if is_last or self._ddp is None else self._ddp.no_sync():
                terms = self._forward(batch, teacher_outputs, progress)
                names = list(terms)
                values, weights = torch.stack(list(terms.values())), self._weigh(names)
                raw = values.detach()
                self.nonfinite_guard.add_loss(raw, (raw * weights).sum(), step)
                if is_last:
                    self.nonfinite_guard.check(names, epoch, step)
                torch.autograd.backward(values, self._divide(weights))  # the weights are the loss's gradient
            means.append(self._divide(raw))
        if self._batch_counters:
            torch._foreach_add_(self._batch_counters, self.num_micro_batches)
        self._set_learning_rates(self._compute_lr(epoch, step), progress)
        if self.recipe.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.distiller.parameters(), self.recipe.optimizer.clip_norm)
        self.optimizer.step()
        self._update_ema(self.steps_per_epoch * (epoch - 1) + step)
        return dict(zip(names, sum(means[1:], means[0]).unbind(), strict=True))

    def _weigh(self, names: list[str]) -> Tensor:
        """The weights of the loss's terms [k], on the device, where they stay."""
        key = tuple(self.loss_weights[name] for name in names)
        if key not in self._weights_on_device:
            self._weights_on_device[key] = torch.tensor(key, device=self.device)
        return self._weights_on_device[key]

    def _divide(self, x: Tensor) -> Tensor:
        """A micro-batch's part of a step's mean."""
        return x if self.num_micro_batches == 1 else x / self.num_micro_batches

    def _set_learning_rates(self, lr: float, progress: float) -> None:
        """Those of this step. A part whose rate is 0 rests: its weights and momentum stay as they are."""
        for group in self.optimizer.param_groups:
            own_rate = self.learning_rates.get(group["part"])
            group["lr"] = lr if own_rate is None else own_rate(progress, lr)
            if group["lr"] == 0:
                for parameter in group["params"]:
                    parameter.grad = None

    def measure_step_seconds(self, steps: int) -> tuple[float, float]:
        """Returns the median seconds of a step and of the teacher's part of it, after two to warm up.

        Not for a training that counts.
        """
        batches, moments = self.get_batches(1), [self._clock.now()]
        for step in range(min(steps + 2, self.steps_per_epoch)):
            self.train_step(1, step, batches)
            moments.append(self._clock.now())
        seconds = [self._clock.seconds(*pair) for pair in pairwise(moments)]
        of_teacher = [self._clock.seconds(*pair) for pair in self._teacher_moments]
        self._teacher_moments = []
        teacher_seconds = statistics.median(of_teacher[2 * self.num_micro_batches :] or of_teacher)
        return statistics.median(seconds[2:] or seconds), teacher_seconds * self.num_micro_batches

    def get_batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yields this rank's micro-batches of an epoch (1-based), from a step (0-based) on."""
        size, seed, count = self.recipe.optimizer.batch_size, self.recipe.seed, len(self.labels)
        shuffled = epoch_permutation(epoch, seed, count)[first * size : self.steps_per_epoch * size]
        micro_size = size // self.world // self.num_micro_batches
        shares = shuffled.view(self.steps_per_epoch - first, self.world, self.num_micro_batches, micro_size)
        positions = shares[:, self.rank].flatten(0, 1)
        view_ids = draw_view_ids(epoch, seed, count, self.source)
        return self.source.batches(positions, view_ids[positions])

    @torch.no_grad()
    def _update_ema(self, step: int) -> None:
        """Exponential moving average of weights and batch-norm statistics; the decay warms up as t/(9+t)."""
        decay = min(self.recipe.ema_decay, step / (9 + step))
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update(*self._ema_tensors, step)

    @torch.no_grad()
    def _average_over_ranks(self) -> None:
        """Batch-norm statistics (also the EMA's) and the epoch's totals become their means over the ranks.

        All of them are means over steps, so how often this is done changes no number. Images that some rank
        could not read count for all.
        """
        self.source.record_corrupt(gather_unique(self.source.list_unreadable()))
        self.partial_epoch.average_over_ranks()
        for net in (self.student, self.ema_student):
            for buffer in net.buffers():
                if buffer.is_floating_point():
                    all_reduce_mean(buffer)

    def measure_accuracy(self, net: nn.Module) -> float:
        """Returns the top-1 accuracy on the held-out images, %."""
        return self._measure_accuracy(net, self.dataset.heldout)

    def measure_test_accuracy(self) -> float:
        """Returns the top-1 accuracy of the EMA student on the test set, %; opened once, at the end."""
        return self._measure_accuracy(self.ema_student, self.dataset.test)

    def _measure_accuracy(self, net: nn.Module, part: Any) -> float:
        return measure_accuracy(net, self.source, part, self.distiller.bf16, self.rank, self.world)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that an exact continuation needs, less the banks: tensors and plain data only."""
        banks = self.large_banks()
        return {
            "epoch": self.num_epochs_done,
            "partial_epoch": self.partial_epoch.state_dict(),
            "unreadable": self.source.list_unreadable(),
            "distiller": {
                key: value for key, value in self.distiller.state_dict().items() if key not in banks
            },
            "ema_student": self.ema_student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }

    def large_banks(self) -> dict[str, Tensor]:
        """Returns the buffers of the method that are too large for every checkpoint."""
        buffers = {f"method.{key}": value for key, value in self.distiller.method.named_buffers()}
        persistent = self.distiller.state_dict().keys()
        return {k: v for k, v in buffers.items() if k in persistent and v.nbytes > LARGE_BANK_BYTES}

    def load_state_dict(self, state: dict[str, Any], banks: dict[str, Tensor]) -> None:
        """Goes on from a state; `banks` may be some epochs older, or empty: they fill anew."""
        self.num_epochs_done, self.partial_epoch = state["epoch"], EpochTotals(**state["partial_epoch"])
        terms = self.partial_epoch.terms  # which move in place
        self.partial_epoch.terms = {k: v.to(self.device, copy=True) for k, v in terms.items()}
        self.source.record_corrupt(state["unreadable"])
        self.distiller.load_state_dict(self.large_banks() | banks | state["distiller"])
        self.ema_student.load_state_dict(state["ema_student"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())


def _float_tensors(net: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()]
