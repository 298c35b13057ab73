"""Cost of every method per step and in memory, relative to KD on the same nets, measured in one run.

    python tests/benchmarks/cost.py [TEACHER STUDENT [STEPS]]

Methods are measured in turns (a few steps each, round after round), so that a noisy machine is noisy for
all; the median counts. One thread. Methods that need rotated views are compared with KD on the same views.
"""

import platform
import statistics
import sys
import time

import torch

from raykd import data, methods, models
from raykd.ledger.stamp import stamp
from raykd.loop import Teaching
from raykd.recipe import Recipe
from raykd.teachers import LiveTeacher

ROUNDS = 5


def teaching(name: str, teacher: str, student: str, rotations: int) -> Teaching:
    chosen = Recipe.model_validate(
        {
            "data": data.Digits(rotations=rotations, holdout=0.2),
            "teacher": {"net": teacher, "weights": "untrained"},
            "student": {"net": student},
            "method": methods.config(name)(),
        },
        strict=False,
    )
    device = torch.device("cpu")
    net = LiveTeacher(models.make(teacher, 10), 32, device, False)
    return Teaching(chosen, data.load(chosen.data, data.default_root(), False), net, device)


def measure(names: list[str], teacher: str, student: str, rotations: int, steps: int) -> None:
    running = {name: teaching(name, teacher, student, rotations) for name in names}
    took: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, one in running.items():
            took[name].append(one.probe(steps))
    base = statistics.median(took["kd"])
    print(f"\n{teacher} -> {student}, batch 64 x {rotations} views\n")
    print("| method | ms a step | of KD's | heads' parameters | buffers, KiB |")
    print("|---|---|---|---|---|")
    for name in sorted(names, key=lambda name: statistics.median(took[name])):
        method, seconds = running[name].lesson.method, statistics.median(took[name])
        heads = sum(p.numel() for p in method.parameters())
        buffers = sum(b.numel() * b.element_size() for b in method.buffers()) / 1024
        print(f"| {name} | {1000 * seconds:.1f} | {seconds / base:.2f} | {heads:,} | {buffers:,.0f} |")


def main(teacher: str = "resnet20", student: str = "resnet8", steps: str = "4") -> None:
    torch.set_num_threads(1)
    print(f"{time.strftime('%F')}, {platform.processor() or platform.machine()}, {stamp()['hardware']}, ")
    print(f"commit {stamp()['commit']}, n = {ROUNDS} rounds of {steps} steps, untrained nets, 1,150 digits")
    plain = [name for name in methods.names() if name not in ("pckd", "sskd")]
    measure(plain, teacher, student, 1, int(steps))
    measure(["kd", "pckd", "sskd"], teacher, student, 4, int(steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
