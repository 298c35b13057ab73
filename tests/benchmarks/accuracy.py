"""Test accuracy of the same recipe in three loops: the baseline of trial.py, raykd with a live teacher, raykd
with a cached loop. Real CIFAR-100, KD, a part of the images, several seeds; raw weights after the last epoch.

    python tests/benchmarks/accuracy.py [IMAGES [EPOCHS [SEEDS]]]
"""

import os
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
from trial import CLASSES, Baseline

from raykd import data
from raykd.store.provenance import record_provenance
from raykd.study.recipe import Recipe
from raykd.teachers.cached import add_cache
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.evaluation import measure_accuracy
from raykd.training.trainer import Trainer

CPU = torch.device("cpu")
TEACHER, STUDENT = "resnet20", "resnet8"


def recipe(images: int, epochs: int, seed: int, method: str) -> Recipe:
    teacher = {"net": TEACHER, "weights": "trained here"} if method == "kd" else None
    plain = {"data": data.CIFAR100(images=images, holdout=0), "teacher": teacher, "epochs": epochs}
    student = {"net": STUDENT if teacher else TEACHER}
    return Recipe.model_validate(
        plain | {"student": student, "method": {"name": method}, "seed": seed}, strict=False
    )


def train_baseline(settings: Recipe, dataset: Any, teacher: Any) -> torch.nn.Module:
    torch.manual_seed(settings.seed)
    loop = Baseline(teacher, STUDENT, dataset.train.origin.positions.tolist())
    for epoch in range(1, settings.epochs + 1):
        for group in loop.optimizer.param_groups:
            group["lr"] = settings.optimizer.lr * settings.schedule.scale(epoch, settings.epochs)
        loop.batches = iter(loop.loader)
        loop.student.train()
        for _ in range(len(loop.loader)):
            loop.step()
    return loop.student


def train_raykd(settings: Recipe, dataset: Any, teacher: Any, gib: float) -> torch.nn.Module:
    live = LiveTeacher(teacher, dataset.size, CPU, False)
    trainer = Trainer(settings, dataset, add_cache(live, settings.data.index_views(dataset), gib, CPU), CPU)
    list(trainer.run())
    return trainer.student


def main(images: str = "2000", epochs: str = "8", seeds: str = "3") -> None:
    teacher_recipe = recipe(int(images), int(epochs), 100, "ce")
    dataset = data.load(teacher_recipe.data, data.default_root(), False)
    trainer = Trainer(teacher_recipe, dataset, NoTeacher(), CPU)
    list(trainer.run())
    teacher: Any = trainer.student
    accuracies: dict[str, list[float]] = {"baseline": [], "raykd, live": [], "raykd, cached": []}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RAYKD_CACHE"] = cache
        for seed in range(1, int(seeds) + 1):
            settings = recipe(int(images), int(epochs), seed, "kd")
            nets = (
                train_baseline(settings, dataset, teacher),
                train_raykd(settings, dataset, teacher, 0),
                train_raykd(settings, dataset, teacher, 8),
            )
            source = settings.data.make_source(dataset, CPU)
            for name, net in zip(accuracies, nets, strict=True):
                accuracies[name].append(measure_accuracy(net, source, dataset.test, False))
    provenance = record_provenance()
    place = f"{provenance['hardware']}, commit {provenance['commit']}"
    print(f"{time.strftime('%F')}, {place}; {TEACHER} -> {STUDENT},")
    print(f"{images} images, {epochs} epochs, n = {seeds} seeds, {CLASSES} classes, test accuracy in %\n")
    print("| loop | by seed | mean | standard deviation |")
    print("|---|---|---|---|")
    for name, values in accuracies.items():
        by_seed = ", ".join(f"{value:.2f}" for value in values)
        print(f"| {name} | {by_seed} | {statistics.mean(values):.2f} | {statistics.stdev(values):.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
