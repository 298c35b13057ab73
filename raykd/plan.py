"""What a study will do and what it will cost, before it does: the opened space, its conditional parts, time
and disk.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raykd import data, lesson, models
from raykd.evaluation import autocast
from raykd.loop import Teaching
from raykd.mistakes import BadInput
from raykd.recipe import Recipe
from raykd.study import Study
from raykd.teachers import LiveTeacher, NoTeacher

PROBE_STEPS = 6


@dataclass(frozen=True)
class Plan:
    """Seconds are measured on this machine by a probe of a few steps, with untrained nets; None where the
    data are not here.
    """

    space: dict[str, str]
    conditional: dict[str, str]
    paper_point: dict[str, Any]
    trials: int
    epochs: int
    images: int  # training images of a trial
    student_parameters: int
    method_parameters: int
    bank_bytes: int  # memory of the method's buffers
    step_seconds: float | None
    trial_seconds: float | None
    search_seconds: float | None  # all trials to their end, one after another
    pruned_seconds: float | None  # about what is left of that when the pruner stops most trials
    confirm_seconds: float | None
    not_measured: str | None  # why there are no seconds
    disk_bytes: int


def plan(study: Study, root: Path, download: bool) -> Plan:
    """The plan of a study. BadInput when the method cannot serve the nets, or when data are missing of which
    nothing is known.
    """
    recipe = study.recipe
    try:
        dataset, figures, missing = _data(recipe, root, download)
        sketch = lesson.check(recipe, *figures)
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(str(error).splitlines()) from None
    step = None if dataset is None else _probe(study, dataset)
    steps = figures.images // recipe.optimizer.batch_size
    trials = study.budget.trials

    def seconds(num_trials: float) -> float | None:
        return None if step is None else step * steps * recipe.epochs * num_trials

    student = models.num_parameters(sketch.student)
    space = study.opened()
    return Plan(
        space={path: str(dimension) for path, dimension in space.items()},
        conditional={p: " and ".join(f"{q} = {v}" for q, v in d.when) for p, d in space.items() if d.when},
        paper_point=dict(study.paper_point()),
        trials=trials,
        epochs=recipe.epochs,
        images=figures.images,
        student_parameters=student,
        method_parameters=sum(p.numel() for p in sketch.method.parameters()),
        bank_bytes=sum(b.numel() * b.element_size() for b in sketch.method.buffers()),
        step_seconds=step,
        trial_seconds=seconds(1),
        search_seconds=seconds(trials),
        pruned_seconds=seconds(trials * _kept_by_pruner(study)),
        confirm_seconds=seconds(_retrainings(study) / (1 - recipe.data.holdout)),
        not_measured=missing,
        disk_bytes=4 * student * (study.keep + 4 * study.cluster.workers) + 400 * recipe.epochs * trials,
    )


def _data(
    recipe: Recipe, root: Path, download: bool
) -> tuple[data.Dataset[Any] | None, data.Figures, str | None]:
    """The data set, if it is here, and its figures; why it is not here, where they are known without it."""
    try:
        dataset = data.load(recipe.data, root, download)
    except BadInput as missing:
        expected = recipe.data.expected()
        if expected is None:
            raise
        return None, expected, missing.lines[0]
    return dataset, dataset.figures, None


def _retrainings(study: Study) -> int:
    """Of the confirmation: the leaders, the paper's point and the controls, with each seed."""
    if study.confirm is None:
        return 0
    controls = [name for name in study.confirm.controls if name != study.recipe.method.name]
    return study.confirm.seeds * (study.confirm.leaders + 1 + len(controls))


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


def _probe(study: Study, dataset: data.Dataset[Any]) -> float:
    """Seconds of one step, the median of a few, teacher's answer included."""
    device = torch.device("cuda" if study.cluster.gpus else "cpu")
    recipe = study.recipe
    teacher: Any = NoTeacher()
    if recipe.teacher is not None and recipe.method.name != "ce":
        net = models.make(recipe.teacher.net, len(dataset.classes))
        teacher = LiveTeacher(net, dataset.size, device, autocast(recipe, device))
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
