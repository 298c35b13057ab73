"""Cost of every method per step, in time and in memory, relative to KD on the same nets, in one run.

    python tests/benchmarks/cost.py [TEACHER STUDENT [STEPS [METHOD ...]]]

CIFAR-100 under RAYKD_DATA, batch 64, one thread, untrained nets, a live teacher. A step is what the loop
does: teacher, student, terms, backward, optimiser, EMA. Time is the process's own (time.process_time),
which other processes hardly touch; the median of rounds in which the methods take turns counts. Memory is
the most that a step allocates at once beyond what lies there before it (torch's profiler). CRD and WCoRD
are measured with both samplings of negatives. Methods that need rotated views are compared with KD on these.
"Student's part": the step less its teacher's forward pass (by the wall clock), of KD's: what it costs of a KD
step once the teacher's outputs are cached.
"""

import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.oracles import peak_bytes

from raykd import data, methods, models
from raykd.data import cifar100
from raykd.store.provenance import record_provenance
from raykd.study.optimizer import Optimizer
from raykd.study.recipe import Recipe
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher, Teacher
from raykd.training.trainer import Trainer

ROUNDS = 5
ROTATED = ("pckd", "sskd")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "crcd": [{"weights": {"gradient": 0.0}}, {}, {"sampling": "per_sample"}],
    "crd": [{"sampling": "shared"}, {"sampling": "per_sample"}],
    "wcord": [{"sampling": "shared"}, {"sampling": "per_sample"}],
    "sdd": [{}, {"divergence": {"kind": "dkd"}}],
    "pckd": [{"weights": {"centre": 0.0}}],  # serves nets of unequal width
}


class MethodRun:
    """One row of the table."""

    def __init__(self, dataset: Any, method: dict[str, Any], nets: tuple[str, str], rotations: int) -> None:
        students, spec = methods.get_class(method["name"]).students, {"net": nets[0], "weights": "untrained"}
        recipe = Recipe.model_validate(
            {
                "data": cifar100.CIFAR100(rotations=rotations),
                **({"teachers": [spec, spec]} if students == "members" else {"teacher": spec}),
                "student": {"net": nets[1], "copies": 2 if students == "peers" else 1},
                "method": methods.get_config_class(method["name"])(**method),
                "optimizer": Optimizer(
                    lr=1e-5
                ),  # untrained nets and every method's own weight: no loss grows
            },
            strict=False,
        )
        device = torch.device("cpu")
        net = models.make(nets[0], len(dataset.classes))
        teacher: Teacher = LiveTeacher(net, dataset.size, device, False)
        if recipe.teachers:
            teacher = EnsembleTeacher([teacher, teacher], [1.0, 1.0])
        self.name = " ".join(f"{value}" for value in method.values())
        self.trainer = Trainer(recipe, dataset, teacher, device)
        self.trainer.distiller.train()
        self.batches = self.trainer.get_batches(1)
        self.count = itertools.count()
        self.durations: list[tuple[float, float]] = []
        self.steps(1)
        with torch.profiler.profile(profile_memory=True) as profile:
            self.steps(1)
        self.peak = peak_bytes(profile) / 2**20

    def steps(self, num: int) -> tuple[float, float]:
        """Milliseconds of processor time a step, and those without the teacher's forward pass."""
        began = time.process_time()
        for _ in range(num):
            self.trainer.train_step(1, next(self.count), self.batches)
        seconds, teacher_seconds = time.process_time() - began, sum(self.trainer.step.take_teacher_times())
        return 1000 * seconds / num, 1000 * (seconds - teacher_seconds) / num

    def medians(self) -> tuple[float, float]:
        whole, student_part = zip(*self.durations, strict=True)
        return statistics.median(whole), statistics.median(student_part)


def measure(names: list[str], nets: tuple[str, str], rotations: int, steps: int) -> None:
    dataset = data.load(cifar100.CIFAR100(), data.default_root(), False)
    rows = []
    for name in names:
        for options in OPTIONS.get(name, [{}]):
            try:
                rows.append(MethodRun(dataset, {"name": name} | options, nets, rotations))
            except ValueError as error:
                print(f"{name}: {error}")
    for _ in range(ROUNDS):
        for row in rows:
            row.durations.append(row.steps(steps))
    base = next(row for row in rows if row.name == "kd")
    print(f"\n{' -> '.join(nets)}, batch 64 x {rotations} views\n")
    print("| method | ms a step | of KD's | student's part, of KD's ", end="")
    print("| MiB at once | of KD's | heads' parameters |")
    print("|---|---|---|---|---|---|---|")
    kd, kd_student_part = base.medians()
    for row in sorted(rows, key=lambda row: row.medians()):
        whole, student_part = row.medians()
        heads = sum(p.numel() for p in row.trainer.distiller.method.parameters())
        print(
            f"| {row.name} | {whole:.0f} | {whole / kd:.2f} | {student_part / kd_student_part:.2f} ", end=""
        )
        print(f"| {row.peak:.0f} | {row.peak / base.peak:.2f} | {heads:,} |", flush=True)


def main(teacher: str = "wrn_40_2", student: str = "wrn_16_2", steps: str = "2", *chosen: str) -> None:
    torch.set_num_threads(1)
    nets = (teacher, student)
    provenance = record_provenance()
    print(
        f"{time.strftime('%F')}, {provenance['hardware']}, one thread, commit {provenance['commit']}, ",
        end="",
    )
    print(f"n = {ROUNDS} rounds of {steps} steps; {' '.join(['python', *sys.argv])}")
    plain = [name for name in chosen or methods.names() if name not in ROTATED]
    measure(plain, nets, 1, int(steps))
    rotated = [name for name in chosen or methods.names() if name in ROTATED]
    if rotated:
        measure(["kd", *rotated], nets, 4, int(steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
