"""`auto` made numbers: what a worker takes, of a GPU by the memory of a training's first steps."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from raykd import data, models, plugins
from raykd.data import Dataset
from raykd.driver import mps
from raykd.driver.resources import (
    Node,
    WorkerSize,
    choose_size,
    describe_choice,
    find_misfit,
    gpu_share,
    has_gpus,
    list_nodes,
    may_share_gpu,
)
from raykd.driver.session import run_on_worker
from raykd.errors import UserError, first_line
from raykd.store.processors import count_cpus
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.evaluation import uses_bf16
from raykd.training.graphs import start_graphs
from raykd.training.trainer import Trainer

NUM_STEPS = 2
TIMEOUT_S = 300.0  # seconds for a GPU to be free, and for the steps


class GpuMemory(NamedTuple):
    """Bytes on one GPU."""

    peak: int  # allocated at most
    total: int  # of the card


def make_untrained_trainer(recipe: Recipe, dataset: Dataset[Any], device: torch.device) -> Trainer:
    """Returns a recipe's trainer beside a teacher of random weights: as fast and as large as the real one."""
    teacher: Any = NoTeacher()
    if recipe.needs_teacher:
        specs = recipe.list_teachers()
        nets = [models.make(spec.net, len(dataset.classes), spec.options) for spec in specs]
        for net in nets:
            net.set_input_statistics(dataset.mean, dataset.std)
        bf16 = uses_bf16(recipe, device)
        teachers = [
            LiveTeacher(net, dataset.size, device, bf16, spec.cache)
            for net, spec in zip(nets, specs, strict=True)
        ]
        teacher = EnsembleTeacher(teachers, [1.0] * len(nets)) if len(nets) > 1 else teachers[0]
    return Trainer(recipe, dataset, teacher, device, graphs=start_graphs(device))


def measure_gpu_memory(recipe: Recipe, dataset: Dataset[Any]) -> GpuMemory | None:
    """Returns what training steps take of this process's GPU; None where torch sees none."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    make_untrained_trainer(recipe, dataset, torch.device("cuda")).measure_step_seconds(NUM_STEPS)
    return GpuMemory(torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(0).total_memory)


def can_use_gpus() -> bool:
    """Returns whether torch can use a GPU of the session's cluster; the driver's machine may have none."""
    return has_gpus(list_nodes()) and run_on_worker(torch.cuda.is_available, (), WorkerSize(0, 1))


def choose_share(memory: GpuMemory | None) -> float:
    """Returns the part of a GPU that a trial of one worker takes; a whole one where nothing was measured."""
    return 1.0 if memory is None else gpu_share(memory.peak, memory.total)


class Resolution(NamedTuple):
    """A study with numbers for `auto`."""

    study: Study
    nodes: list[Node]  # what they were chosen for
    description: str  # in words: what a trial takes, and why


def resolve_on_cluster(study: Study, data_root: Path, download: bool) -> Resolution:
    """Returns the study with numbers for `auto`, for the nodes of the Ray session.

    Raises:
        UserError: A trial or a retraining never fits there.
    """
    nodes, share, reason = list_nodes(), 1.0, ""
    if study.cluster.gpus == "auto" and has_gpus(nodes):
        share, reason = _measure_on_cluster(study, data_root, download)
    resolution = resolve(study, nodes, share, reason)
    if misfit := find_misfit(resolution.study, nodes):
        raise UserError([misfit])
    return resolution


def resolve_here(study: Study, dataset: Dataset[Any] | None) -> Resolution:
    """Returns the study with numbers for `auto`, for this machine alone, which needs no Ray.

    Args:
        study: The study.
        dataset: Its data, to measure a trial's memory on a GPU; None: a trial takes a whole one.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    nodes = [{"CPU": float(count_cpus()), "GPU": float(torch.cuda.device_count()), "memory": float(memory)}]
    measures = dataset is not None and may_share_gpu(study, nodes)
    share = choose_share(measure_gpu_memory(study.recipe, dataset)) if dataset and measures else 1.0
    resolution = resolve(study, nodes, share)
    if 0 < resolution.study.cluster.num_gpus < 1:
        words = f"{resolution.description}; {mps.describe(mps.can_share())}"
        return resolution._replace(description=words)
    return resolution


def resolve(study: Study, nodes: list[Node], share: float = 1.0, reason: str = "") -> Resolution:
    """Returns the study with numbers for `auto`; workers that may share a GPU take `share` of it."""
    resolved = study.with_resources(*choose_size(study, nodes, share))
    description = find_misfit(resolved, nodes) or describe_choice(resolved, nodes)
    return Resolution(resolved, nodes, description + (f" ({reason})" if reason else ""))


def _measure_on_cluster(study: Study, data_root: Path, download: bool) -> tuple[float, str]:
    """The part of a GPU for a trial, measured on one of the session's, 0 for no GPU; and why, in words."""
    import ray

    probe = ray.remote(num_cpus=0, num_gpus=1, max_retries=0)(_measure_on_worker)
    reference = probe.remote(study.to_dict(), plugins.get_sources(), data_root, download)
    try:
        memory = ray.get(reference, timeout=TIMEOUT_S)
    except (ray.exceptions.RayError, TimeoutError) as error:
        ray.cancel(reference, force=True)
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        return 1.0, f"a trial's memory was not measured: {first_line(cause)}"
    if memory is None:
        return 0.0, "torch can use no GPU where Ray sees one"
    peak, total = (size / 2**30 for size in memory)
    return choose_share(memory), f"a training step takes {peak:.1f} of a GPU's {total:.0f} GiB"


def _measure_on_worker(
    plain: dict[str, Any], sources: plugins.Sources, data_root: Path, download: bool
) -> GpuMemory | None:
    plugins.use(sources)
    recipe = Study.parse(plain, "study").recipe
    return measure_gpu_memory(recipe, data.load(recipe.data, data_root, download))
