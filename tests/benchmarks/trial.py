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
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torchvision import transforms as T

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.gpu_steps import make_dataset

from raykd import data, models
from raykd.errors import UserError
from raykd.store.provenance import record_provenance
from raykd.study.recipe import Recipe
from raykd.teachers.cached import add_cache
from raykd.teachers.teacher import LiveTeacher
from raykd.training.evaluation import uses_bf16
from raykd.training.graphs import Graphs
from raykd.training.metrics import EpochTotals
from raykd.training.trainer import Trainer

PAIRS = (("resnet56", "resnet20"), ("resnet32x4", "resnet8x4"), ("wrn_40_2", "wrn_16_2"))
BATCH, CLASSES = 64, 100
CPU = torch.device("cpu")


class Black(torch.utils.data.Dataset[Any]):
    """In CIFAR-100's place where it is not there: speed does not depend on what is seen."""

    def __init__(self, transform: Any) -> None:
        self._pixels, self._transform = np.zeros((50_000, 32, 32, 3), np.uint8), transform

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> Any:
        return self._transform(Image.fromarray(self._pixels[index])), index % CLASSES


def open_images(transform: Any) -> Any:
    """The training images, as torchvision reads them."""
    try:
        return torchvision.datasets.CIFAR100(str(data.default_root()), train=True, transform=transform)
    except RuntimeError:  # not found
        return Black(transform)


class Baseline:
    """The loop that distillation code bases use."""

    def __init__(
        self,
        teacher: torch.nn.Module,
        student: str,
        positions: Sequence[int] | None = None,
        device: torch.device = CPU,
    ) -> None:
        mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
        transform = T.Compose(
            [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(mean, std)]
        )
        images = open_images(transform)
        if positions is not None:
            images = torch.utils.data.Subset(images, positions)
        self.loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, num_workers=2, drop_last=True)
        self.device = device
        self.teacher, self.student = teacher.eval().to(device), models.make(student, CLASSES).to(device)
        self.optimizer = torch.optim.SGD(self.student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
        self.batches: Iterator[Any] = iter(self.loader)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> float:
        images, labels = (tensor.to(self.device) for tensor in next(self.batches))
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

    def __init__(
        self,
        teacher: str,
        student: str,
        steps: int,
        gib: float,
        device: torch.device = CPU,
        graphs: Graphs | None = None,
        compiled: bool = False,
    ) -> None:
        recipe = Recipe.model_validate(
            {
                "data": data.CIFAR100(images=BATCH * steps, holdout=0),
                "teacher": {"net": teacher, "weights": "untrained"},
                "student": {"net": student},
                "method": {"name": "kd"},
            },
            strict=False,
        )
        try:
            dataset = data.load(recipe.data, data.default_root(), False)
        except UserError:
            dataset = make_dataset(BATCH * steps)  # as Black
        net = models.make(teacher, CLASSES)
        live = LiveTeacher(net, dataset.size, device, uses_bf16(recipe, device))
        cached = add_cache(live, recipe.data.index_views(dataset), gib, device)
        self.trainer, self.graphs = Trainer(recipe, dataset, cached, device, graphs=graphs), graphs
        for learner in (net, self.trainer.distiller.student) if compiled else ():
            learner.compile()

    def run(self, steps: int) -> None:
        """One epoch, of as many steps as this was built for."""
        self.trainer.partial_epoch = EpochTotals()
        list(self.trainer.train_epoch(1, math.inf))


def count_processor_seconds() -> float:
    """Of this process and of the baseline's workers, so far."""
    children = (child.cpu_times() for child in psutil.Process().children())
    return time.process_time() + sum(times.user + times.system for times in children)


def measure(loops: dict[str, Any], rounds: int, steps: int) -> dict[str, tuple[float, float]]:
    """Each loop's images/s and milliseconds of processor time an image, medians; they take turns."""
    rates: dict[str, list[float]] = {name: [] for name in loops}
    costs: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds + 1):  # the first warms up, and fills the cache
        for name, loop in loops.items():
            began, spent = time.perf_counter(), count_processor_seconds()
            loop.run(steps)
            rates[name].append(BATCH * steps / (time.perf_counter() - began))
            costs[name].append(1000 * (count_processor_seconds() - spent) / BATCH / steps)
    return {name: (statistics.median(rates[name][1:]), statistics.median(costs[name][1:])) for name in loops}


def measure_pair(teacher: str, student: str, rounds: int, steps: int) -> str:
    """A row of the table."""
    loops: dict[str, Any] = {
        "baseline": Baseline(models.make(teacher, CLASSES), student),
        "live": Raykd(teacher, student, steps, 0),
        "warm": Raykd(teacher, student, steps, 8),
    }
    medians = measure(loops, rounds, steps)
    assert loops["warm"].trainer.partial_epoch.teacher_misses == 0, "the cache was not warm"
    rate, cost = medians["baseline"]
    cells = [
        f"{fast:.0f} ({fast / rate:.2f}x), {cheap:.2f} ms ({cost / cheap:.2f}x)"
        for fast, cheap in medians.values()
    ]
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
            print(measure_pair(*pair, int(rounds), int(steps)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
