"""How fast one worker teaches: measured by a few steps with untrained nets."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raykd import data, models
from raykd.evaluation import autocast
from raykd.loop import Teaching
from raykd.study import Study
from raykd.teachers import LiveTeacher, NoTeacher

STEPS = 6


@dataclass(frozen=True)
class Speed:
    """Of one worker that has its devices to itself."""

    images_per_second: float  # training images; each rotated view counts, as in the rows of a trial
    source: str  # where it was measured, or that it was given


def probe(study: Study, root: Path, download: bool) -> Speed:
    """Measured in this process, reading of the images and the teacher's answer included. BadInput when the
    data are not here.
    """
    return measured(study, data.load(study.recipe.data, root, download))


def measured(study: Study, dataset: data.Dataset[Any]) -> Speed:
    """The median of a few whole steps at the recipe's batch size."""
    device = torch.device("cuda" if study.cluster.gpus else "cpu")
    recipe = study.recipe
    teacher: Any = NoTeacher()
    if recipe.teacher is not None and recipe.method.name != "ce":
        net = models.make(recipe.teacher.net, len(dataset.classes))
        teacher = LiveTeacher(net, dataset.size, device, autocast(recipe, device))
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, round(study.cluster.cpus)))
    try:
        step = Teaching(recipe, dataset, teacher, device).probe(STEPS)
    finally:
        torch.set_num_threads(threads)
    views = recipe.optimizer.batch_size * recipe.data.rotations
    return Speed(views / step, f"{STEPS} steps on {_hardware(study, device)}")


def _hardware(study: Study, device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, host {platform.node()}"
    cores = f"{max(1, round(study.cluster.cpus))} of {os.cpu_count()} cores"
    return f"{platform.machine()} CPU, {cores}, host {platform.node()}"
