"""One trial's speed: raykd's trainer, with a live teacher and with a warm cache, against the loop that
distillation code bases use, on the same nets, batches of 64 of the real CIFAR-100, KD, in one run.

    python tests/benchmarks/trial.py [THREADS [ROUNDS [STEPS]]]

The baseline: torchvision's data set, PIL transforms in two DataLoader workers, float32, NCHW, the teacher's
forward pass in every step, .item() in every step. The loops take turns, round after round, so that a noisy
machine is noisy for all; the median counts. The workers go on in the others' turns, in the baseline's
favour. Nets are untrained: speed does not depend on their weights.
"""

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import torch
import torch.nn.functional as F
import torchvision
from torchvision import transforms as T

from raykd import data, models
from raykd.store.provenance import record_provenance
from raykd.study.recipe import Recipe
from raykd.teachers.cached import add_cache
from raykd.teachers.teacher import LiveTeacher
from raykd.training.metrics import EpochTotals
from raykd.training.trainer import Trainer

PAIRS = (("resnet56", "resnet20"), ("resnet32x4", "resnet8x4"), ("wrn_40_2", "wrn_16_2"))
BATCH, CLASSES = 64, 100


class Baseline:
    """The loop that distillation code bases use."""

    def __init__(
        self, teacher: torch.nn.Module, student: str, positions: Sequence[int] | None = None
    ) -> None:
        mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
        transform = T.Compose(
            [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(mean, std)]
        )
        images: Any = torchvision.datasets.CIFAR100(str(data.default_root()), train=True, transform=transform)
        if positions is not None:
            images = torch.utils.data.Subset(images, positions)
        self.loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, num_workers=2, drop_last=True)
        self.teacher, self.student = teacher.eval(), models.make(student, CLASSES)
        self.optimizer = torch.optim.SGD(self.student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
        self.batches: Iterator[Any] = iter(self.loader)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> float:
        images, labels = next(self.batches)
        with torch.no_grad():
            teacher_logits = self.teacher(images).logits
        logits = self.student(images).logits
        kd = (
            F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(teacher_logits / 4, 1), reduction="batchmean")
            * 16
        )
        loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * kd
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        correct: float = (logits.argmax(1) == labels).float().mean().item()
        return correct + float(loss.item())


class Raykd:
    """One epoch of so many steps, again and again: with a cache, its second pass finds every view there.

    The cache may take so many GiB; less than it needs (5.8 for a teacher of width 256, as all images of
    CIFAR-100 have their place in it) would keep the outputs for a part of the images only.
    """

    def __init__(self, teacher: str, student: str, steps: int, gib: float) -> None:
        recipe = Recipe.model_validate(
            {
                "data": data.CIFAR100(images=BATCH * steps, holdout=0),
                "teacher": {"net": teacher, "weights": "untrained"},
                "student": {"net": student},
                "method": {"name": "kd"},
            },
            strict=False,
        )
        device = torch.device("cpu")
        dataset = data.load(recipe.data, data.default_root(), False)
        live = LiveTeacher(models.make(teacher, CLASSES), dataset.size, device, False)
        cached = add_cache(live, recipe.data.index_views(dataset), gib, device)
        self.trainer = Trainer(recipe, dataset, cached, device)

    def run(self, steps: int) -> None:
        """One epoch, of as many steps as this was built for."""
        self.trainer.partial_epoch = EpochTotals()
        list(self.trainer.train_epoch(1, math.inf))


def count_processor_seconds() -> float:
    """Of this process and of the baseline's workers, so far."""
    children = (child.cpu_times() for child in psutil.Process().children())
    return time.process_time() + sum(times.user + times.system for times in children)


def measure(teacher: str, student: str, rounds: int, steps: int) -> str:
    loops: dict[str, Any] = {
        "baseline": Baseline(models.make(teacher, CLASSES), student),
        "live": Raykd(teacher, student, steps, 0),
        "warm": Raykd(teacher, student, steps, 8),
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    costs: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds + 1):  # the first warms up, and fills the cache
        for name, loop in loops.items():
            began, spent = time.perf_counter(), count_processor_seconds()
            loop.run(steps)
            rates[name].append(BATCH * steps / (time.perf_counter() - began))
            costs[name].append(1000 * (count_processor_seconds() - spent) / BATCH / steps)
    assert loops["warm"].trainer.partial_epoch.teacher_misses == 0, "the cache was not warm"
    cells = []
    rate, cost = (statistics.median(values["baseline"][1:]) for values in (rates, costs))
    for name in loops:
        fast, cheap = statistics.median(rates[name][1:]), statistics.median(costs[name][1:])
        cells.append(f"{fast:.0f} ({fast / rate:.2f}x), {cheap:.2f} ms ({cost / cheap:.2f}x)")
    return f"| {teacher} -> {student} | {' | '.join(cells)} |"


def main(threads: str = "2", rounds: str = "3", steps: str = "12") -> None:
    torch.set_num_threads(int(threads))
    provenance = record_provenance()
    place = f"{provenance['hardware']}, commit {provenance['commit']}, torch {torch.__version__}"
    print(
        f"{time.strftime('%F')}, {place}, {threads} threads; KD, batch {BATCH}; images/s and processor time"
    )
    print(f"an image, median of n = {rounds} rounds of {steps} steps each, after one round\n")
    print("| pair | baseline | raykd, teacher live | raykd, cache warm |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RAYKD_CACHE"] = cache
        for pair in PAIRS:
            print(measure(*pair, int(rounds), int(steps)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
