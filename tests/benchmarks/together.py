"""Several trials at once on one machine: images per second of all together, against one trial on all cores.

python tests/benchmarks/together.py [TEACHER STUDENT [SECONDS]]

"apart": k processes, the cores divided among them (at least one thread each), every one with its own teacher.
"apart, table": the same with the teacher's table, warm, as a study has it from its second trial on.
"lockstep": one process, all cores, k students taught in turn on one stream of batches, one teacher's answer a
batch. KD, batch 64, digits. Without a table the answers are the teacher's own, in float32.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from typing import Any

import torch

from raykd import data, methods, models
from raykd.store.provenance import stamp
from raykd.study.recipe import Recipe
from raykd.teachers.cached import tabled
from raykd.teachers.teacher import LiveTeacher
from raykd.training.trainer import Teaching

COUNTS = (1, 2, 4, 8)
BATCH = 64


def teaching(teacher: str, student: str, table: bool) -> Teaching:
    torch.manual_seed(0)  # the table is of one teacher
    recipe = Recipe.model_validate(
        {
            "data": data.Digits(holdout=0.2),
            "teacher": {"net": teacher, "weights": "untrained"},
            "student": {"net": student},
            "method": methods.config("kd")(),
        },
        strict=False,
    )
    device = torch.device("cpu")
    dataset = data.load(recipe.data, data.default_root(), False)
    live = LiveTeacher(models.make(teacher, 10), 32, device, False)
    answers = tabled(live, recipe.data.catalogue(dataset), 8.0 if table else 0.0, device)
    return Teaching(recipe, dataset, answers, device)


def steps_of_one(
    nets: tuple[str, str], table: bool, threads: int, seconds: float, gate: Any, counted: Any
) -> None:
    torch.set_num_threads(threads)
    one = teaching(*nets, table)
    one.probe(1)
    if table:
        for batch in one._batches(1):
            one.teacher.view(batch)
    gate.wait()
    steps, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for step, batch in enumerate(one._batches(1)):
            one._step(1, step, iter([batch]))
            steps += 1
            if time.perf_counter() >= end:
                break
    counted.put(steps)


def apart(nets: tuple[str, str], count: int, seconds: float, table: bool) -> float:
    spawn = multiprocessing.get_context("spawn")
    gate, counted = spawn.Barrier(count), spawn.Queue()
    threads = max(1, (os.cpu_count() or 1) // count)
    running = [
        spawn.Process(target=steps_of_one, args=(nets, table, threads, seconds, gate, counted))
        for _ in range(count)
    ]
    for process in running:
        process.start()
    steps = sum(counted.get() for _ in running)
    for process in running:
        process.join()
    return steps * BATCH / seconds


class Again:
    """A teacher that answers a batch once and says the same to every student of it."""

    def __init__(self, live: Any) -> None:
        self.shapes, self._live, self._batch, self._answer = live.shapes, live, None, None

    def view(self, batch: Any) -> Any:
        if batch is not self._batch:
            self._batch, self._answer = batch, self._live.view(batch)
        return self._answer


def lockstep(nets: tuple[str, str], count: int, seconds: float) -> float:
    torch.set_num_threads(os.cpu_count() or 1)
    students = [teaching(*nets, False) for _ in range(count)]
    shared = Again(students[0].teacher)
    for one in students:
        one.teacher = shared
        one.probe(1)
    steps, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for step, batch in enumerate(students[0]._batches(1)):
            for one in students:
                one._step(1, step, iter([batch]))
                steps += 1
            if time.perf_counter() >= end:
                break
    return steps * BATCH / seconds


def main(teacher: str = "resnet32x4", student: str = "resnet8x4", seconds: str = "20") -> None:
    print(
        f"{time.strftime('%F')}, {stamp()['hardware']}, commit {stamp()['commit']}, {seconds} s each, n = 1\n"
    )
    print(f"images/s of {teacher} -> {student}, and of one trial with a live teacher:\n")
    print("| trials at once | apart | apart, table | lockstep |")
    print("|---|---|---|---|")
    base = 0.0
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RAYKD_CACHE"] = cache
        for count in COUNTS:
            live = apart((teacher, student), count, float(seconds), table=False)
            kept = apart((teacher, student), count, float(seconds), table=True)
            turns = lockstep((teacher, student), count, float(seconds))
            base = base or live
            cells = " | ".join(f"{rate:.0f} ({rate / base:.2f})" for rate in (live, kept, turns))
            print(f"| {count} | {cells} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
