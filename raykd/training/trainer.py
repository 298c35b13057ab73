"""Train one student: epochs, held-out accuracy, a state that resumes exactly. Knows no Ray.

trainer = Trainer(recipe, dataset, teacher, device)
for metrics in trainer.run():
    ...                        # report the metrics; torch.save(trainer.state_dict())

Several workers: each batch is split into workers * accumulate micro-batches of equal size, and a worker takes
`accumulate` neighbours, one after another. Which images an epoch shows, and in which batches, depends on
the recipe alone: a state written by some workers goes on with any other number of them.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raykd import models
from raykd.batch import Batch
from raykd.data import Dataset
from raykd.data.sampler import draw_epoch
from raykd.maths.foreach import add_to_each
from raykd.maths.norm import convert_sync_batchnorm, take_batch_counters
from raykd.metric import Metric
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import CacheStats, LiveTeacher, Teacher
from raykd.training.distiller import Distiller
from raykd.training.ema import MovingAverage
from raykd.training.evaluation import measure_accuracy, measure_metrics, set_numerics, uses_bf16
from raykd.training.graphs import Graphs
from raykd.training.metrics import EpochMetrics, EpochTotals, average_statistics, gather_unique
from raykd.training.peers import Peers, Start
from raykd.training.perturbation import Perturbation
from raykd.training.step import OptimizerStep

EMA = "ema_student", "ema_peers"  # in a state
LARGE_BANK_BYTES = 64 * 2**20  # a larger bank is not written into every checkpoint


class Trainer:
    """The training of one student, or of several that teach one another.

    Under torch.distributed each rank takes its share of every batch. `starts`: the weights that each student
    begins with, less those of a new head, or None (random ones); empty: all random. `graphs`: what its steps
    are captured in and replayed from; None: every step is run.

    Raises:
        ValueError: The method cannot serve the nets, or the batch cannot be divided among the ranks.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset[Any],
        teacher: Teacher,
        device: torch.device,
        starts: Sequence[Start] = (),
        metric: Metric = "accuracy",
        graphs: Graphs | None = None,
    ) -> None:
        set_numerics(device, uses_bf16(recipe, device))
        torch.manual_seed(recipe.seed)
        self.recipe, self.dataset, self.teacher, self.device = recipe, dataset, teacher, device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.num_epochs_done, self.partial_epoch, self.metric = 0, EpochTotals(), metric
        self.has_notice = False  # whether a machine of any rank is about to be taken away
        self.source = recipe.data.make_source(dataset, device)
        self.labels = dataset.train.labels.to(device)
        self.distiller = Distiller(
            recipe, self.labels, len(dataset.classes), dataset.size, teacher.shapes, starts
        )
        for student in self.distiller.list_students():
            student.set_input_statistics(dataset.mean, dataset.std)
        if recipe.batch_norm == "synced" and self.world > 1:
            convert_sync_batchnorm(self.distiller)
        self.distiller.to(device).to(memory_format=torch.channels_last)
        learners = [self.distiller.student, *([self.distiller.peers] if self.distiller.peers else [])]
        self._batch_counters = [counter for net in learners for counter in take_batch_counters(net)]
        self.distiller.bf16 = uses_bf16(recipe, device)
        if isinstance(teacher, LiveTeacher) and "stages" in self.distiller.method.needs:
            self.distiller.teacher_stages = teacher.stages
        self._host_labels, self._grouping = dataset.train.labels, recipe.grouping
        # the odd rest of an epoch is left out
        self.steps_per_epoch = self._grouping.count_rows(self._host_labels) // recipe.optimizer.batch_size
        recipe.check_batch_size(self.world, len(self._host_labels))
        recipe.check_classes(self._host_labels, dataset.classes)
        self.student = self.distiller.deployed_student()
        self._averages = [MovingAverage(net, recipe.ema_decay) for net in (self.student, *learners[1:])]
        self.ema_student = self._averages[0].net
        self._perturbation = (
            Perturbation(recipe, self.distiller.student, teacher, (dataset.mean, dataset.std))
            if recipe.method.image_step
            else None
        )
        self.step = OptimizerStep(recipe, self.distiller, teacher, device, self.steps_per_epoch)
        if graphs is not None:
            self.source.wrap(graphs.wrap)
            teacher.wrap(graphs.wrap)
            self.step.use_graphs(graphs)
            if self._perturbation is not None:
                graphs.leave_eager("perturbation", "the host draws whose layers run")

    def run(self) -> Iterator[EpochMetrics]:
        """Trains from where the state stands to the end of the budget; yields each epoch's metrics.

        Raises:
            NonFiniteLoss: A loss term is not finite; the weights are those before that step.
        """
        return (metrics for metrics in self.run_until(math.inf) if metrics is not None)

    def run_until(
        self, seconds: float, has_notice: Callable[[], bool] = lambda: False
    ) -> Iterator[EpochMetrics | None]:
        """As `run`, and yields None when it is time to save, inside an epoch.

        Whenever so many seconds of it have passed, or a rank has notice that its machine is about to be taken
        away; `self.has_notice` then says so on every rank.
        """
        while self.num_epochs_done < self.recipe.epochs:
            yield from self.train_epoch(self.num_epochs_done + 1, seconds, has_notice)
            metrics = self._compute_metrics(self.num_epochs_done + 1)
            self.num_epochs_done, self.partial_epoch = self.num_epochs_done + 1, EpochTotals()
            yield metrics

    def train_epoch(
        self, epoch: int, seconds: float, has_notice: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Trains what is left of an epoch; yields None as `run_until`."""
        self.distiller.train()
        began, cache_stats = time.perf_counter(), replace(self.teacher.cache_stats)
        batches = self.get_batches(epoch, self.partial_epoch.steps)
        for step in range(self.partial_epoch.steps, self.steps_per_epoch):
            self.partial_epoch.add_step(self.train_step(epoch, step, batches))
            if (
                step + 1 < self.steps_per_epoch
                and self.step.nonfinite_guard.checks(step)
                and self._should_save(began + seconds, has_notice)
            ):
                self._add_interval(began, cache_stats)
                self._average_over_ranks()
                yield None
                began, cache_stats = time.perf_counter(), replace(self.teacher.cache_stats)
        self._add_interval(began, cache_stats)

    def _add_interval(self, began: float, cache_stats: CacheStats) -> None:
        teacher_seconds = sum(self.step.take_teacher_times())  # waits for a GPU, whose steps are done then
        seconds = time.perf_counter() - began
        self.partial_epoch.add_interval(seconds, teacher_seconds, cache_stats, self.teacher.cache_stats)

    def _should_save(self, moment: float, has_notice: Callable[[], bool]) -> bool:
        """Whether the moment is over by the first rank's clock, or any rank has notice: all say the same."""
        is_past, self.has_notice = self.rank == 0 and time.perf_counter() >= moment, has_notice()
        if self.world > 1 and moment < math.inf:
            votes = torch.tensor([is_past, self.has_notice], dtype=torch.float32, device=self.device)
            dist.all_reduce(votes, dist.ReduceOp.MAX)
            is_past, self.has_notice = map(bool, votes.tolist())
        return is_past or self.has_notice

    def wait_for_ranks(self) -> None:
        """Returns when every rank has called it."""
        if self.world > 1:
            dist.barrier()

    def _compute_metrics(self, epoch: int) -> EpochMetrics:
        """The metrics of an epoch whose steps are done."""
        began = time.perf_counter()
        self._average_over_ranks()
        scores = self._measure_heldout()
        num_images = self.steps_per_epoch * self.recipe.optimizer.batch_size * self.recipe.data.rotations
        metrics = EpochMetrics(
            epoch=epoch,
            accuracy=scores.pop("accuracy"),
            accuracy_raw=scores.pop("accuracy_raw"),
            lr=self.step.compute_lr(epoch, self.steps_per_epoch - 1),
            seconds=self.partial_epoch.seconds + time.perf_counter() - began,
            teacher_seconds=self.partial_epoch.teacher_seconds,
            teacher_hits=self.partial_epoch.teacher_hits,
            teacher_misses=self.partial_epoch.teacher_misses,
            teacher_seconds_saved=self.partial_epoch.teacher_seconds_saved,
            images_per_second=num_images / self.partial_epoch.seconds,
            terms=self.partial_epoch.mean_terms(),
        )
        if metrics["accuracy"] is not None and (ema_peers := self.list_ema_peers()):
            metrics["peer_accuracies"] = [self.measure_accuracy(net) for net in ema_peers]
        judged = scores | {"metric": self.metric} if self.metric != "accuracy" else {}
        return cast(EpochMetrics, {**metrics, **judged})

    def _measure_heldout(self) -> dict[str, float | None]:
        """The metrics of the EMA student, and "..._raw" of the student; None: nothing is held out."""
        heldout = self.dataset.heldout
        if not len(heldout.labels):
            return {f"{name}{end}": None for name in ("accuracy", self.metric) for end in ("", "_raw")}
        averaged, raw = (self._measure_metrics(net, heldout) for net in (self.ema_student, self.student))
        return {**averaged, **{f"{name}_raw": value for name, value in raw.items()}}

    def train_step(self, epoch: int, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Takes a step (0-based) of an epoch (1-based) with the next batches; returns the raw terms."""
        terms = self.step.take(epoch, step, batches)
        if self._batch_counters:
            add_to_each(self._batch_counters, self.recipe.optimizer.accumulate)
        for average in self._averages:
            average.update(self.steps_per_epoch * (epoch - 1) + step)
        return terms

    def measure_step_seconds(self, steps: int) -> tuple[float, float]:
        """Returns the median seconds of a step and of the teacher's part of it, after two to warm up.

        Not for a training that counts.
        """
        clock, accumulate = self.step.clock, self.recipe.optimizer.accumulate
        batches, moments = self.get_batches(1), [clock.now()]
        for step in range(min(steps + 2, self.steps_per_epoch)):
            self.train_step(1, step, batches)
            moments.append(clock.now())
        seconds, of_teacher = (
            [clock.seconds(*pair) for pair in pairwise(moments)],
            self.step.take_teacher_times(),
        )
        teacher_seconds = statistics.median(of_teacher[2 * accumulate :] or of_teacher)
        return statistics.median(seconds[2:] or seconds), teacher_seconds * accumulate

    def get_batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yields this rank's micro-batches of an epoch (1-based), from a step (0-based) on."""
        size, accumulate = self.recipe.optimizer.batch_size, self.recipe.optimizer.accumulate
        rows = draw_epoch(epoch, self.recipe.seed, self._host_labels, self._grouping, self.source)
        shape = self.steps_per_epoch - first, self.world, accumulate, size // self.world // accumulate
        shares = (x[first * size : self.steps_per_epoch * size].view(*shape, *x.shape[1:]) for x in rows)
        positions, view_ids = (x[:, self.rank].flatten(0, 1) for x in shares)
        batches = self.source.batches(positions, view_ids)
        if self._perturbation is None:
            return batches
        return self._perturbation.move_batches(batches, epoch, first, self.distiller.bf16)

    @torch.no_grad()
    def _average_over_ranks(self) -> None:
        """Batch-norm statistics (also the EMA's) and the epoch's totals become their means over the ranks.

        All of them are means over steps, so how often this is done changes no number. Images that some rank
        could not read count for all.
        """
        self.source.record_corrupt(gather_unique(self.source.list_unreadable()))
        self.partial_epoch.average_over_ranks()
        for net in (self.student, self.distiller.peers, *(average.net for average in self._averages)):
            if net is not None:
                average_statistics(net)

    def measure_accuracy(self, net: nn.Module) -> float:
        """Returns the top-1 accuracy on the held-out images, %."""
        return self._measure_accuracy(net, self.dataset.heldout)

    def measure_test_metrics(self) -> dict[str, float]:
        """Returns accuracy and metric of the EMA student on the test set, %; opened once, at the end."""
        return self._measure_metrics(self.ema_student, self.dataset.test)

    def measure_peer_test_accuracies(self) -> list[float]:
        """Returns the same of the EMA of each other student; empty where there is one alone."""
        return [self._measure_accuracy(net, self.dataset.test) for net in self.list_ema_peers()]

    def list_ema_peers(self) -> list[models.Net]:
        """Returns the EMA of each other student as a net."""
        peers = [average.net for average in self._averages[1:]]
        return [net for one in peers if isinstance(one, Peers) for net in one.list_nets(self.ema_student)]

    def _measure_metrics(self, net: nn.Module, part: Any) -> dict[str, float]:
        bf16, num_classes = self.distiller.bf16, len(self.dataset.classes)
        return measure_metrics(net, self.source, part, bf16, self.metric, num_classes, self.rank, self.world)

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
            **{name: average.net.state_dict() for name, average in zip(EMA, self._averages, strict=False)},
            "optimizer": self.step.optimizer.state_dict(),
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
        for name, average in zip(EMA, self._averages, strict=False):
            average.net.load_state_dict(state[name])
        self.step.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
