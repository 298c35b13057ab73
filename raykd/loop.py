"""Teach one student: epochs, held-out accuracy, a state that resumes exactly. Knows no Ray.

teaching = Teaching(recipe, dataset, teacher, device)
for row in teaching.epochs():
    ...                        # report the row; torch.save(teaching.state_dict())
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypedDict

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raykd.data import Dataset, Source, draw, order
from raykd.lesson import Lesson
from raykd.recipe import Recipe
from raykd.step import Batch
from raykd.teachers import Answers

LARGE = 64 * 2**20  # bytes of a bank that is not written into every checkpoint
LOOK = 100  # steps between two looks of the host at a GPU's losses


class Diverged(RuntimeError):
    """A loss term is no longer finite. Names the term, its value, the epoch and the step."""


class Row(TypedDict):
    """What one epoch reports."""

    epoch: int  # 1-based
    accuracy: float | None  # %, held-out images, averaged weights; None where nothing is held out
    accuracy_raw: float | None  # %, held-out images, the weights as they are
    lr: float
    seconds: float  # training and evaluation
    teacher_seconds: float  # of these, waiting for the teacher's answers
    teacher_hits: int  # views whose answers were in the teacher's table
    teacher_misses: int  # views that the teacher looked at
    teacher_seconds_saved: float  # by the hits
    images_per_second: float  # training images (each rotated view counts)
    terms: dict[str, float]  # raw loss terms, mean over the epoch


class Teaching:
    """One student being taught. Under torch.distributed each rank takes its share of every batch."""

    def __init__(self, recipe: Recipe, dataset: Dataset[Any], teacher: Answers, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.dataset, self.teacher, self.device = recipe, dataset, teacher, device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.done = 0
        self.source = recipe.data.source(dataset, device)
        self.labels = dataset.train.labels.to(device)
        self.lesson = Lesson(recipe, self.labels, len(dataset.classes), dataset.size, teacher.shapes)
        self.lesson.to(device).to(memory_format=torch.channels_last)
        self.lesson.autocast = autocast(recipe, device)
        self.optimizer = recipe.optimizer.make(self.lesson)
        self.student = self.lesson.deployed()
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self._averaged = _floats(self.average), _floats(self.student)
        self._seen: list[tuple[int, Tensor]] = []  # of steps since the last look: the terms and their sum
        self._look = 1 if device.type == "cpu" else LOOK
        self._bad = torch.zeros((), device=device)  # 1 once a loss was not finite
        self.optimizer.found_inf = self._bad  # type: ignore[attr-defined]  # the fused step then leaves all as it is
        self.weights = recipe.weights()
        self.steps = len(self.labels) // recipe.optimizer.batch_size  # the odd rest of an epoch is left out
        if self.steps == 0:
            raise ValueError(
                f"batch_size = {recipe.optimizer.batch_size} "
                f"is more than the {len(self.labels)} training images"
            )
        if recipe.optimizer.batch_size % self.world:
            raise ValueError(
                f"batch_size = {recipe.optimizer.batch_size} cannot be shared evenly by {self.world} workers"
            )
        self._teach: nn.Module = self.lesson
        if self.world > 1:
            self._teach = DistributedDataParallel(self.lesson, forward_sync_buffers=False)

    def epochs(self) -> Iterator[Row]:
        """Teach from where the state stands to the end of the budget; a Row after each epoch."""
        while self.done < self.recipe.epochs:
            row = self._epoch(self.done + 1)
            self.done += 1
            yield row

    def _epoch(self, epoch: int) -> Row:
        began = time.perf_counter()
        lr = self.recipe.optimizer.lr * self.recipe.schedule.scale(epoch, self.recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.lesson.train()
        before = replace(self.teacher.tally)
        totals: dict[str, Tensor] = {}
        teacher_seconds = 0.0
        for step, batch in enumerate(self._batches(epoch)):
            terms, waited = self._step(epoch, step, batch)
            teacher_seconds += waited
            for name, term in terms.items():
                totals[name] = totals.get(name, torch.zeros_like(term)) + term
        self._share_statistics()
        trained = time.perf_counter() - began
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
            lr=lr,
            seconds=time.perf_counter() - began,
            teacher_seconds=teacher_seconds,
            teacher_hits=self.teacher.tally.hits - before.hits,
            teacher_misses=self.teacher.tally.misses - before.misses,
            teacher_seconds_saved=self.teacher.tally.seconds_saved - before.seconds_saved,
            images_per_second=shown / trained,
            terms={name: float(self._mean(total / self.steps)) for name, total in totals.items()},
        )

    def _step(self, epoch: int, step: int, batch: Batch) -> tuple[dict[str, Tensor], float]:
        """One step of the optimiser: the raw terms, and the seconds spent on the teacher's answer."""
        asked = time.perf_counter()
        answer = self.teacher.view(batch)
        waited = time.perf_counter() - asked
        terms = self._teach(batch, answer, (epoch - 1 + step / self.steps) / self.recipe.epochs)
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        self._watch(loss, terms, epoch, step)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self._average(self.steps * (epoch - 1) + step)
        return {name: term.detach() for name, term in terms.items()}, waited

    def probe(self, steps: int) -> float:
        """Median seconds of a step, after two to warm up. The teaching is spoilt by it."""
        took = []
        batches = self._batches(1)
        self._look = 1  # the host waits for each step, on a GPU too
        for step in range(min(steps + 2, self.steps)):
            began = time.perf_counter()
            self._step(1, step, next(batches))
            took.append(time.perf_counter() - began)
        return sorted(took[2:] or took)[len(took[2:] or took) // 2]

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """This rank's share of each batch of an epoch."""
        size, seed, count = self.recipe.optimizer.batch_size, self.recipe.seed, len(self.labels)
        shuffled = order(epoch, seed, count)[: self.steps * size]
        positions = shuffled.view(self.steps, self.world, size // self.world)[:, self.rank]
        return self.source.batches(positions, draw(epoch, seed, count, self.source)[positions])

    def _watch(self, loss: Tensor, terms: dict[str, Tensor], epoch: int, step: int) -> None:
        """A loss that is not finite keeps the optimiser from this step and all that follow; then Diverged.

        A GPU does the first by itself; the host looks only now and then, since each look waits for the GPU.
        """
        self._seen.append((step, torch.stack([*terms.values(), loss]).detach()))
        torch.maximum(self._bad, (~loss.detach().isfinite()).float(), out=self._bad)
        if self.world > 1:
            dist.all_reduce(self._bad, dist.ReduceOp.MAX)
        if (step + 1) % self._look == 0 or step + 1 == self.steps:
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
        if self.world > 1:
            told = [*told] * self.world
            dist.all_gather_object(told, told[self.rank])
        step, named = min(one for rank in told for one in rank)
        raise Diverged(f"loss term not finite: {named} (epoch {epoch}, step {step + 1} of {self.steps})")

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Exponential moving average of weights and batch-norm statistics; the decay warms up as
        t / (9 + t).
        """
        decay = min(self.recipe.averaging, step / (9 + step))
        torch._foreach_lerp_(*self._averaged, 1 - decay)

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Batch-norm statistics become the mean over the ranks, in the student and in its average."""
        if self.world == 1:
            return
        for net in (self.student, self.average):
            for buffer in net.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.world

    def accuracy(self, net: nn.Module) -> float:
        """Top-1 accuracy on the held-out images, %."""
        return self._accuracy(net, self.dataset.heldout)

    def test_accuracy(self) -> float:
        """Top-1 accuracy of the averaged student on the test set, %. Opened by `confirm` and `train --test`
        only.
        """
        return self._accuracy(self.average, self.dataset.test)

    def _accuracy(self, net: nn.Module, part: Any) -> float:
        return accuracy(net, self.source, part, self.lesson.autocast, self.rank, self.world)

    def _mean(self, value: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(value)
            value = value / self.world
        return value

    def state_dict(self) -> dict[str, Any]:
        """All that an exact continuation needs, less the banks: tensors and plain data only."""
        banks = self.banks()
        return {
            "epoch": self.done,
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
        self.done = state["epoch"]
        self.lesson.load_state_dict(self.banks() | banks | state["lesson"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())


def _floats(net: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()]


@torch.no_grad()
def accuracy(
    net: nn.Module, source: Source[Any], part: Any, half: bool, rank: int = 0, world: int = 1
) -> float:
    """Top-1 accuracy on a part of the data, %; each rank looks at its share and all get the exact whole."""
    net.eval()
    right = torch.zeros((), dtype=torch.int64, device=next(net.parameters()).device)
    for images, labels in source.plain(part, rank, world):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            logits = net(images).logits
        right += (logits.argmax(1) == labels).sum()
    if world > 1:
        dist.all_reduce(right)
    return 100 * right.item() / len(part.labels)


def autocast(recipe: Recipe, device: torch.device) -> bool:
    """Whether the nets run in bfloat16: as the recipe says, and for "auto" where the device has it in
    hardware.
    """
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )
