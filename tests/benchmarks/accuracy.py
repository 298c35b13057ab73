"""Test accuracy of the same recipe in three loops: the baseline of trial.py, raykd with a live teacher, raykd
with a table. Real CIFAR-100, KD, a part of the images, several seeds; raw weights after the last epoch.

    python tests/benchmarks/accuracy.py [IMAGES [EPOCHS [SEEDS]]]
"""

import os
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
from trial import CLASSES, Plain

from raykd import data
from raykd.store.provenance import stamp
from raykd.study.recipe import Recipe
from raykd.teachers.cached import tabled
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.evaluation import accuracy
from raykd.training.trainer import Teaching

CPU = torch.device("cpu")
TEACHER, STUDENT = "resnet20", "resnet8"


def recipe(images: int, epochs: int, seed: int, method: str) -> Recipe:
    teacher = {"net": TEACHER, "weights": "trained here"} if method == "kd" else None
    settings = {"data": data.CIFAR100(images=images, holdout=0), "teacher": teacher, "epochs": epochs}
    student = {"net": STUDENT if teacher else TEACHER}
    return Recipe.model_validate(
        settings | {"student": student, "method": {"name": method}, "seed": seed}, strict=False
    )


def baseline(chosen: Recipe, dataset: Any, teacher: Any) -> torch.nn.Module:
    torch.manual_seed(chosen.seed)
    one = Plain(teacher, STUDENT, dataset.train.origin.positions.tolist())
    for epoch in range(1, chosen.epochs + 1):
        for group in one.optimizer.param_groups:
            group["lr"] = chosen.optimizer.lr * chosen.schedule.scale(epoch, chosen.epochs)
        one.batches = iter(one.loader)
        one.student.train()
        for _ in range(len(one.loader)):
            one.step()
    return one.student


def ours(chosen: Recipe, dataset: Any, teacher: Any, gib: float) -> torch.nn.Module:
    live = LiveTeacher(teacher, dataset.size, CPU, False)
    teaching = Teaching(chosen, dataset, tabled(live, chosen.data.catalogue(dataset), gib, CPU), CPU)
    list(teaching.epochs())
    return teaching.student


def main(images: str = "2000", epochs: str = "8", seeds: str = "3") -> None:
    learnt = recipe(int(images), int(epochs), 100, "ce")
    dataset = data.load(learnt.data, data.default_root(), False)
    teaching = Teaching(learnt, dataset, NoTeacher(), CPU)
    list(teaching.epochs())
    teacher: Any = teaching.student
    found: dict[str, list[float]] = {"baseline": [], "raykd, live": [], "raykd, table": []}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RAYKD_CACHE"] = cache
        for seed in range(1, int(seeds) + 1):
            chosen = recipe(int(images), int(epochs), seed, "kd")
            nets = (
                baseline(chosen, dataset, teacher),
                ours(chosen, dataset, teacher, 0),
                ours(chosen, dataset, teacher, 8),
            )
            source = chosen.data.source(dataset, CPU)
            for name, net in zip(found, nets, strict=True):
                found[name].append(accuracy(net, source, dataset.test, False))
    print(
        f"{time.strftime('%F')}, {stamp()['hardware']}, commit {stamp()['commit']}; {TEACHER} -> {STUDENT},"
    )
    print(f"{images} images, {epochs} epochs, n = {seeds} seeds, {CLASSES} classes, test accuracy in %\n")
    print("| loop | by seed | mean | standard deviation |")
    print("|---|---|---|---|")
    for name, values in found.items():
        by_seed = ", ".join(f"{value:.2f}" for value in values)
        print(f"| {name} | {by_seed} | {statistics.mean(values):.2f} | {statistics.stdev(values):.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
