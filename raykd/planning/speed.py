"""How fast one worker trains: measured by a few steps with untrained nets."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raykd import data, models
from raykd.errors import UserError
from raykd.store.processors import count_cpus
from raykd.study.study import Study
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.evaluation import uses_bf16
from raykd.training.trainer import Trainer

PROBE_STEPS = 6


@dataclass(frozen=True)
class Speed:
    """Of one worker that has its devices to itself."""

    images_per_second: float  # training images; each rotated view counts, as in the rows of a trial
    source: str  # where it was measured, or that it was given


def probe_speed(study: Study, data_root: Path, download: bool) -> Speed:
    """Returns the speed in this process, images read and the teacher's forward pass included.

    Raises:
        UserError: The data are not here.
    """
    return measure_speed(study, data.load(study.recipe.data, data_root, download))


def probe_on_cluster(study: Study, data_root: Path, download: bool, address: str) -> Speed:
    """Returns the speed of one worker on a device of the cluster at `address`, where its data must lie.

    Raises:
        UserError: No worker fits, or the data are missing there.
    """
    from raykd.driver.session import run_on_worker  # here: a plan without a cluster needs no Ray

    cluster = study.cluster
    arguments = (study.to_dict(), data_root, download)
    result = run_on_worker(_probe_on_worker, arguments, cluster.cpus, cluster.gpus, address)
    if isinstance(result, list):
        raise UserError(result)
    return Speed(*result)


def _probe_on_worker(plain: dict[str, Any], data_root: Path, download: bool) -> tuple[float, str] | list[str]:
    """On the node: the speed and its source, or what is wrong with the input."""
    try:
        speed = probe_speed(Study.parse(plain, "study"), data_root, download)
    except UserError as error:
        return error.lines
    return speed.images_per_second, speed.source


def measure_speed(study: Study, dataset: data.Dataset[Any]) -> Speed:
    """Returns the median speed of a few whole steps at the recipe's batch size."""
    device = torch.device("cuda" if study.cluster.gpus else "cpu")
    recipe = study.recipe
    teacher: Any = NoTeacher()
    if recipe.teacher is not None and recipe.needs_teacher:
        net = models.make(recipe.teacher.net, len(dataset.classes))
        teacher = LiveTeacher(net, dataset.size, device, uses_bf16(recipe, device))
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, round(study.cluster.cpus)))
    try:
        step_seconds = Trainer(recipe, dataset, teacher, device).measure_step_seconds(PROBE_STEPS)
    finally:
        torch.set_num_threads(threads)
    views = recipe.optimizer.batch_size * recipe.data.rotations
    return Speed(views / step_seconds, f"{PROBE_STEPS} steps on {_describe_hardware(study, device)}")


def _describe_hardware(study: Study, device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, host {platform.node()}"
    cores = f"{max(1, round(study.cluster.cpus))} of {count_cpus()} cores"
    return f"{platform.machine()} CPU, {cores}, host {platform.node()}"
