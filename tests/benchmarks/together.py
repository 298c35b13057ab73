"""Several trials at once on one machine: images per second of all together, against one trial on all cores.

python tests/benchmarks/together.py [TEACHER STUDENT [SECONDS]]

"apart": k processes, the cores divided among them (at least one thread each), every one with its own teacher.
"apart, cached": the same with the teacher's cache, warm, as a study has it from its second trial on.
"lockstep": one process, all cores, k students trained in turn on one stream of batches, one forward pass of
the teacher a batch. KD, batch 64, digits. Without a cache the outputs are the teacher's own.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from typing import Any

import torch

from raykd import data, methods, models
from raykd.store.provenance import record_provenance
from raykd.study.recipe import Recipe
from raykd.teachers.cached import add_cache
from raykd.teachers.teacher import LiveTeacher
from raykd.training.evaluation import uses_bf16
from raykd.training.trainer import Trainer

COUNTS = (1, 2, 4, 8)
BATCH = 64
READY_S = 180  # seconds that processes have to begin
CPU = torch.device("cpu")


def make_trainer(teacher: str, student: str, cached: bool, device: torch.device = CPU) -> Trainer:
    torch.manual_seed(0)  # the cache is of one teacher
    recipe = Recipe.model_validate(
        {
            "data": data.Digits(holdout=0.2),
            "teacher": {"net": teacher, "weights": "untrained"},
            "student": {"net": student},
            "method": methods.get_config_class("kd")(),
        },
        strict=False,
    )
    dataset = data.load(recipe.data, data.default_root(), False)
    live = LiveTeacher(models.make(teacher, 10), 32, device, uses_bf16(recipe, device))
    teacher_outputs = add_cache(live, recipe.data.index_views(dataset), 8.0 if cached else 0.0, device)
    return Trainer(recipe, dataset, teacher_outputs, device)


def train_one(
    nets: tuple[str, str],
    cached: bool,
    threads: int,
    seconds: float,
    device: torch.device,
    barrier: Any,
    rates: Any,
) -> None:
    torch.set_num_threads(threads)
    trainer = make_trainer(*nets, cached, device)
    trainer.measure_step_seconds(1)
    if cached:
        for batch in trainer.get_batches(1):
            trainer.teacher.get_outputs(batch)
    barrier.wait()
    began, steps = time.perf_counter(), 0
    end = began + seconds
    while time.perf_counter() < end:
        for step, batch in enumerate(trainer.get_batches(1)):
            trainer.train_step(1, step, iter([batch]))
            steps += 1
            if time.perf_counter() >= end:
                break
    trainer.step.take_teacher_times()  # waits for a GPU
    rates.put(steps * BATCH / (time.perf_counter() - began))


def measure_apart(
    nets: tuple[str, str], count: int, seconds: float, cached: bool, device: torch.device = CPU
) -> float:
    """The images/s of all. queue.Empty where one of them does not get ready, or does not end, in time."""
    spawn = multiprocessing.get_context("spawn")
    barrier, rates = spawn.Barrier(count, timeout=READY_S), spawn.Queue()
    threads = max(1, (os.cpu_count() or 1) // count)
    processes = [
        spawn.Process(target=train_one, args=(nets, cached, threads, seconds, device, barrier, rates))
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        return sum(rates.get(timeout=READY_S + 2 * seconds) for _ in processes)
    finally:
        for process in processes:
            process.terminate()
            process.join()


class SharedTeacher:
    """A teacher that computes a batch once, for all students."""

    def __init__(self, live: Any) -> None:
        self.shapes, self._live, self._batch, self._outputs = live.shapes, live, None, None

    def get_outputs(self, batch: Any) -> Any:
        if batch is not self._batch:
            self._batch, self._outputs = batch, self._live.get_outputs(batch)
        return self._outputs


def measure_lockstep(nets: tuple[str, str], count: int, seconds: float) -> float:
    torch.set_num_threads(os.cpu_count() or 1)
    trainers = [make_trainer(*nets, False) for _ in range(count)]
    shared = SharedTeacher(trainers[0].teacher)
    for trainer in trainers:
        trainer.teacher = shared
        trainer.measure_step_seconds(1)
    steps, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for step, batch in enumerate(trainers[0].get_batches(1)):
            for trainer in trainers:
                trainer.train_step(1, step, iter([batch]))
                steps += 1
            if time.perf_counter() >= end:
                break
    return steps * BATCH / seconds


def main(teacher: str = "resnet32x4", student: str = "resnet8x4", seconds: str = "20") -> None:
    provenance = record_provenance()
    place = f"{provenance['hardware']}, commit {provenance['commit']}"
    print(f"{time.strftime('%F')}, {place}, {seconds} s each, n = 1\n")
    print(f"images/s of {teacher} -> {student}, and of one trial with a live teacher:\n")
    print("| trials at once | apart | apart, cached | lockstep |")
    print("|---|---|---|---|")
    base = 0.0
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RAYKD_CACHE"] = cache
        for count in COUNTS:
            live = measure_apart((teacher, student), count, float(seconds), cached=False)
            cached = measure_apart((teacher, student), count, float(seconds), cached=True)
            lockstep = measure_lockstep((teacher, student), count, float(seconds))
            base = base or live
            cells = " | ".join(f"{rate:.0f} ({rate / base:.2f})" for rate in (live, cached, lockstep))
            print(f"| {count} | {cells} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
