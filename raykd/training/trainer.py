"""Teach one student: epochs, held-out accuracy, a state that resumes exactly. Knows no Ray.

teaching = Teaching(recipe, dataset, teacher, device)
for row in teaching.epochs():
    ...                        # report the row; torch.save(teaching.state_dict())

Several workers: each batch is cut into workers * accumulate micro-batches of equal size, and a worker takes
`accumulate` neighbours, one after another. Which images an epoch shows, and in which batches, depends on
the recipe alone: a state written by some workers goes on with any other number of them.
"""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raykd.batch import Batch
from raykd.data import Dataset, draw, order
from raykd.maths.norm import joined
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import Answers
from raykd.training.distiller import Lesson
from raykd.training.evaluation import accuracy, autocast
from raykd.training.metrics import Row, Sums, everywhere, mean
from raykd.training.nonfinite import Watch

LARGE = 64 * 2**20  # bytes of a bank that is not written into every checkpoint


class Teaching:
    """One student being taught. Under torch.distributed each rank takes its share of every batch."""

    def __init__(self, recipe: Recipe, dataset: Dataset[Any], teacher: Answers, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.dataset, self.teacher, self.device = recipe, dataset, teacher, device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.done, self.within = 0, Sums()
        self.source = recipe.data.source(dataset, device)
        self.labels = dataset.train.labels.to(device)
        self.lesson = Lesson(recipe, self.labels, len(dataset.classes), dataset.size, teacher.shapes)
        if recipe.batch_norm == "synced" and self.world > 1:
            joined(self.lesson, device)
        self.lesson.to(device).to(memory_format=torch.channels_last)
        self.lesson.autocast = autocast(recipe, device)
        self.optimizer = recipe.optimizer.make(self.lesson)
        self.student = self.lesson.deployed()
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self._averaged = _floats(self.average), _floats(self.student)
        self.weights = recipe.weights()
        self.steps = len(self.labels) // recipe.optimizer.batch_size  # the odd rest of an epoch is left out
        self.parts = recipe.optimizer.accumulate
        self.watch = Watch(self.optimizer, device, self.steps)
        self._fits()
        self._shared: DistributedDataParallel | None = None
        if self.world > 1:
            self._shared = DistributedDataParallel(self.lesson, forward_sync_buffers=False)
        self._teach: nn.Module = self._shared or self.lesson

    def _fits(self) -> None:
        size = self.recipe.optimizer.batch_size
        if self.steps == 0:
            raise ValueError(f"batch_size = {size} is more than the {len(self.labels)} training images")
        if size % (self.world * self.parts):
            micro = f", each in {self.parts} micro-batches" if self.parts > 1 else ""
            raise ValueError(f"batch_size = {size} cannot be shared evenly by {self.world} workers{micro}")

    def epochs(self) -> Iterator[Row]:
        """Teach from where the state stands to the end of the budget; a Row after each epoch."""
        return (row for row in self.stretches(math.inf) if row is not None)

    def stretches(self, seconds: float) -> Iterator[Row | None]:
        """As `epochs`, and None whenever so many seconds have passed inside one: a moment to keep a state."""
        while self.done < self.recipe.epochs:
            yield from self._steps(self.done + 1, seconds)
            row = self._row(self.done + 1)
            self.done, self.within = self.done + 1, Sums()
            yield row

    def _steps(self, epoch: int, seconds: float) -> Iterator[None]:
        """Teach what is left of an epoch, with pauses."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(epoch)
        self.lesson.train()
        began, known = time.perf_counter(), replace(self.teacher.tally)
        batches = self._batches(epoch, self.within.steps)
        for step in range(self.within.steps, self.steps):
            self.within.add(*self._step(epoch, step, batches))
            if step + 1 < self.steps and self.watch.looks(step) and self._due(began + seconds):
                self.within.end_stretch(time.perf_counter() - began, known, self.teacher.tally)
                self._share()
                yield None
                began, known = time.perf_counter(), replace(self.teacher.tally)
        self.within.end_stretch(time.perf_counter() - began, known, self.teacher.tally)

    def _due(self, moment: float) -> bool:
        """Whether the moment is over, by the first rank's clock: all pause after the same step."""
        due = time.perf_counter() >= moment
        if self.world == 1 or moment == math.inf:
            return due
        told = torch.tensor(float(due), device=self.device)
        dist.broadcast(told, 0)
        return bool(told)

    def _row(self, epoch: int) -> Row:
        """The row of an epoch whose steps are done."""
        began = time.perf_counter()
        self._share()
        accuracy, accuracy_raw = (
            (self.accuracy(self.average), self.accuracy(self.student))
            if len(self.dataset.heldout.labels)
            else (None, None)
        )
        shown = self.steps * self.recipe.optimizer.batch_size * self.recipe.data.rotations
        return Row(
            epoch=epoch,
            accuracy=accuracy,
            accuracy_raw=accuracy_raw,
            lr=self._lr(epoch),
            seconds=self.within.seconds + time.perf_counter() - began,
            teacher_seconds=self.within.teacher_seconds,
            teacher_hits=self.within.teacher_hits,
            teacher_misses=self.within.teacher_misses,
            teacher_seconds_saved=self.within.teacher_seconds_saved,
            images_per_second=shown / self.within.seconds,
            terms=self.within.means(),
        )

    def _lr(self, epoch: int) -> float:
        return self.recipe.optimizer.rate * self.recipe.schedule.scale(epoch, self.recipe.epochs)

    def _step(self, epoch: int, step: int, batches: Iterator[Batch]) -> tuple[dict[str, Tensor], float]:
        """One step of the optimiser: the raw terms, and the seconds spent on the teacher's answer.

        The gradient of a batch is the mean of its micro-batches' gradients.
        """
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        waited = 0.0
        for part in range(1, self.parts + 1):
            batch = next(batches)
            asked = time.perf_counter()
            answer = self.teacher.view(batch)
            waited += time.perf_counter() - asked
            last = part == self.parts  # then the ranks share their gradients
            with nullcontext() if last or self._shared is None else self._shared.no_sync():
                terms = self._teach(batch, answer, (epoch - 1 + step / self.steps) / self.recipe.epochs)
                loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
                self.watch.loss(loss, terms, epoch, step)
                torch.autograd.backward(loss / self.parts)
            for name, term in terms.items():
                totals[name] = totals.get(name, torch.zeros_like(term)) + term.detach() / self.parts
        self.optimizer.step()
        self._average(self.steps * (epoch - 1) + step)
        return totals, waited

    def probe(self, steps: int) -> float:
        """Median seconds of a step, after two to warm up. The teaching is spoilt by it."""
        took = []
        batches = self._batches(1)
        self.watch.every = 1  # the host waits for each step, on a GPU too
        for step in range(min(steps + 2, self.steps)):
            began = time.perf_counter()
            self._step(1, step, batches)
            took.append(time.perf_counter() - began)
        return sorted(took[2:] or took)[len(took[2:] or took) // 2]

    def _batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches of an epoch, from a step on."""
        size, seed, count = self.recipe.optimizer.batch_size, self.recipe.seed, len(self.labels)
        shuffled = order(epoch, seed, count)[first * size : self.steps * size]
        cut = shuffled.view(self.steps - first, self.world, self.parts, size // self.world // self.parts)
        positions = cut[:, self.rank].flatten(0, 1)
        return self.source.batches(positions, draw(epoch, seed, count, self.source)[positions])

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Exponential moving average of weights and batch-norm statistics; the decay warms up as t/(9+t)."""
        decay = min(self.recipe.averaging, step / (9 + step))
        torch._foreach_lerp_(*self._averaged, 1 - decay)

    @torch.no_grad()
    def _share(self) -> None:
        """Batch-norm statistics (of the student and of its average) and the sums of the epoch become the mean
        over the ranks: all of them are means over steps, so how often this is done changes no number. Images
        that some rank could not read count for all.
        """
        self.source.count(everywhere(self.source.unreadable()))
        self.within.share()
        for net in (self.student, self.average):
            for buffer in net.buffers():
                if buffer.is_floating_point():
                    mean(buffer)

    def accuracy(self, net: nn.Module) -> float:
        """Top-1 accuracy on the held-out images, %."""
        return self._accuracy(net, self.dataset.heldout)

    def test_accuracy(self) -> float:
        """Top-1 accuracy of the averaged student on the test set, %: for `confirm` and `train --test`."""
        return self._accuracy(self.average, self.dataset.test)

    def _accuracy(self, net: nn.Module, part: Any) -> float:
        return accuracy(net, self.source, part, self.lesson.autocast, self.rank, self.world)

    def state_dict(self) -> dict[str, Any]:
        """All that an exact continuation needs, less the banks: tensors and plain data only."""
        banks = self.banks()
        return {
            "epoch": self.done,
            "within": self.within.state_dict(),
            "unreadable": self.source.unreadable(),
            "lesson": {key: value for key, value in self.lesson.state_dict().items() if key not in banks},
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }

    def banks(self) -> dict[str, Tensor]:
        """Buffers of the method that are too large for every checkpoint."""
        buffers = {f"method.{key}": value for key, value in self.lesson.method.named_buffers()}
        kept = self.lesson.state_dict().keys()
        return {k: v for k, v in buffers.items() if k in kept and v.numel() * v.element_size() > LARGE}

    def load_state_dict(self, state: dict[str, Any], banks: dict[str, Tensor]) -> None:
        """Go on from a state; `banks` may be some epochs older, or empty: they fill anew."""
        self.done, self.within = state["epoch"], Sums(**state["within"])
        self.within.totals = {name: total.to(self.device) for name, total in self.within.totals.items()}
        self.source.count(state["unreadable"])
        self.lesson.load_state_dict(self.banks() | banks | state["lesson"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())


def _floats(net: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()]
