"""What a study will do and what it will cost, before it does: the opened space, its conditional parts, time
and disk.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raykd import data, lesson, models
from raykd.loop import Teaching, autocast
from raykd.mistakes import BadInput
from raykd.study import Study
from raykd.teachers import LiveTeacher, NoTeacher

PROBE_STEPS = 6


@dataclass(frozen=True)
class Plan:
    """Seconds are measured on this machine by a probe of a few steps, with untrained nets."""

    space: dict[str, str]
    conditional: dict[str, str]
    paper_point: dict[str, Any]
    trials: int
    epochs: int
    images: int  # training images of a trial
    student_parameters: int
    method_parameters: int
    bank_bytes: int  # memory of the method's buffers
    step_seconds: float
    trial_seconds: float
    search_seconds: float  # all trials to their end, one after another
    pruned_seconds: float  # about what is left of that when the pruner stops most trials
    confirm_seconds: float
    disk_bytes: int


def plan(study: Study, root: Path, download: bool) -> Plan:
    """The plan of a study. BadInput when the data are missing or the method cannot serve the nets."""
    recipe = study.recipe
    try:
        dataset = data.load(recipe.data, root, download)
        classes, size = len(dataset.classes), dataset.train.pixels.shape[1]
        sketch = lesson.check(recipe, classes, size, len(dataset.train.labels))
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(str(error).splitlines()) from None
    step = _probe(study, dataset)
    steps = len(dataset.train.labels) // recipe.optimizer.batch_size
    trial = step * steps * recipe.epochs
    fraction = _kept_by_pruner(study)
    retrainings = (
        0
        if study.confirm is None
        else study.confirm.seeds
        * (study.confirm.leaders + 1 + len([c for c in study.confirm.controls if c != recipe.method.name]))
    )
    student = models.num_parameters(sketch.student)
    buffers = sum(b.numel() * b.element_size() for b in sketch.method.buffers())
    space = study.opened()
    return Plan(
        space={path: str(dimension) for path, dimension in space.items()},
        conditional={p: " and ".join(f"{q} = {v}" for q, v in d.when) for p, d in space.items() if d.when},
        paper_point=dict(study.paper_point()),
        trials=study.budget.trials,
        epochs=recipe.epochs,
        images=len(dataset.train.labels),
        student_parameters=student,
        method_parameters=sum(p.numel() for p in sketch.method.parameters()),
        bank_bytes=buffers,
        step_seconds=step,
        trial_seconds=trial,
        search_seconds=trial * study.budget.trials,
        pruned_seconds=trial * study.budget.trials * fraction,
        confirm_seconds=trial * retrainings / (1 - recipe.data.holdout),
        disk_bytes=4 * student * (study.keep + 4 * study.cluster.workers)
        + 400 * recipe.epochs * study.budget.trials,
    )


def _kept_by_pruner(study: Study) -> float:
    """About the part of all epochs that the pruner leaves: 1/eta of the trials goes on at each rung."""
    pruner = study.search.pruner
    if pruner.kind == "none":
        return 1.0
    if pruner.kind == "median":
        return 0.5 * (1 + pruner.grace)
    rungs = [pruner.grace]
    while rungs[-1] * pruner.eta < 1:
        rungs.append(rungs[-1] * pruner.eta)
    alive, spent, before = 1.0, 0.0, 0.0
    for rung in [*rungs, 1.0]:
        spent, before, alive = spent + alive * (rung - before), rung, alive / pruner.eta
    return min(1.0, spent)


def _probe(study: Study, dataset: data.Dataset) -> float:
    """Seconds of one step, the median of a few, teacher's answer included."""
    device = torch.device("cuda" if study.cluster.gpus else "cpu")
    recipe = study.recipe
    teacher: Any = NoTeacher()
    if recipe.teacher is not None and recipe.method.name != "ce":
        net = models.make(recipe.teacher.net, len(dataset.classes))
        teacher = LiveTeacher(net, dataset.train.pixels.shape[1], device, autocast(recipe, device))
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, round(study.cluster.cpus)))
    try:
        teaching = Teaching(recipe, dataset, teacher, device)
        return teaching.probe(PROBE_STEPS)
    finally:
        torch.set_num_threads(threads)


def seconds_in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"
