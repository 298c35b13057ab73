"""How fast one worker teaches: measured by a few steps with untrained nets."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raykd import data, models
from raykd.errors import BadInput
from raykd.study.study import Study
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.evaluation import autocast
from raykd.training.trainer import Teaching

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


def probe_on_cluster(study: Study, root: Path, download: bool, address: str) -> Speed:
    """The speed of one worker of the study on a device of the cluster at `address`, where its data must lie.
    BadInput when no worker fits, or the data are missing there.
    """
    from raykd.driver.session import run_on_worker  # here: a plan without a cluster needs no Ray

    cluster = study.cluster
    arguments = (study.plain(), root, download)
    found = run_on_worker(_probe_here, arguments, cluster.cpus, cluster.gpus, address)
    if isinstance(found, list):
        raise BadInput(found)
    return Speed(*found)


def _probe_here(plain: dict[str, Any], root: Path, download: bool) -> tuple[float, str] | list[str]:
    """On the node: the speed and its source, or what is wrong with the input."""
    try:
        speed = probe(Study.parse(plain, "study"), root, download)
    except BadInput as error:
        return error.lines
    return speed.images_per_second, speed.source


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
