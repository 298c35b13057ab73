"""How fast one worker trains: measured by a few steps with untrained nets."""

import platform
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from raykd import data, plugins
from raykd.driver.auto_resources import Resolution, make_untrained_trainer, resolve_on_cluster
from raykd.driver.resources import get_size
from raykd.errors import UserError
from raykd.store.processors import count_cpus
from raykd.study.study import Study

PROBE_STEPS = 6


@dataclass(frozen=True)
class Speed:
    """Of one worker that has its devices to itself."""

    images_per_second: float  # training images; each rotated view counts, as in the rows of a trial
    source: str  # where it was measured, or that it was given
    teacher_seconds: float | None = None  # of a view's forward passes; None where that is not known


def probe_speed(study: Study, data_root: Path, download: bool) -> Speed:
    """Returns the speed in this process, images read and the teacher's forward pass included.

    Raises:
        UserError: The data are not here.
    """
    return measure_speed(study, data.load(study.recipe.data, data_root, download))


def probe_on_cluster(study: Study, data_root: Path, download: bool, address: str) -> tuple[Resolution, Speed]:
    """Returns the study with numbers for `auto`, and the speed of one of its workers, on a Ray cluster.

    Raises:
        UserError: No trial fits on the cluster at `address`, or the data are missing there.
    """
    from raykd.driver.session import connect, run_on_worker  # here: a plan without a cluster needs no Ray

    with connect(address):
        resolution = resolve_on_cluster(study, data_root, download)
        arguments = (resolution.study.to_dict(), plugins.get_sources(), data_root, download)
        result = run_on_worker(_probe_on_worker, arguments, get_size(resolution.study))
    if isinstance(result, list):
        raise UserError(result)
    return resolution, Speed(*result)


def _probe_on_worker(
    plain: dict[str, Any], sources: plugins.Sources, data_root: Path, download: bool
) -> tuple[Any, ...] | list[str]:
    """On the node: the fields of the speed, or what is wrong with the input."""
    try:
        plugins.use(sources)
        speed = probe_speed(Study.parse(plain, "study"), data_root, download)
    except UserError as error:
        return error.lines
    return astuple(speed)


def measure_speed(study: Study, dataset: data.Dataset[Any]) -> Speed:
    """Returns the median speed of a few whole steps at the recipe's batch size."""
    device = torch.device("cuda" if study.cluster.num_gpus else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, round(study.cluster.num_cpus)))
    try:
        trainer = make_untrained_trainer(study.recipe, dataset, device)
        step_seconds, teacher_seconds = trainer.measure_step_seconds(PROBE_STEPS)
    finally:
        torch.set_num_threads(threads)
    recipe = study.recipe
    views = recipe.optimizer.batch_size * recipe.data.rotations
    source = f"{PROBE_STEPS} steps on {_describe_hardware(study, device)}"
    return Speed(views / step_seconds, source, teacher_seconds / views)


def _describe_hardware(study: Study, device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, host {platform.node()}"
    cores = f"{max(1, round(study.cluster.num_cpus))} of {count_cpus()} cores"
    return f"{platform.machine()} CPU, {cores}, host {platform.node()}"
