"""The teachers of a trial: their nets from the files that the job names, each with its cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raykd import models
from raykd.data import Dataset
from raykd.study.recipe import Recipe, TeacherSpec
from raykd.teachers.cache_form import CacheForm
from raykd.teachers.cached import add_cache
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher, NoTeacher, Teacher
from raykd.training.evaluation import uses_bf16
from raykd.training.start import make_started


@dataclass(frozen=True)
class TeacherFiles:
    """Where teachers come from."""

    places: tuple[str, ...]  # the file of each one's weights, in the recipe's order
    cache_gib: float  # of the node's disk for their outputs
    cache: Path | None  # the folder of caches; None: this node's own
    download: bool  # whether weights that are not here may be fetched


def make_teacher(files: TeacherFiles, recipe: Recipe, dataset: Dataset[Any], device: torch.device) -> Teacher:
    """Returns the teacher of a recipe's students: one, several as one, or none."""
    if not recipe.needs_teacher:
        return NoTeacher()
    nets = load_teachers(files, recipe, dataset)
    forms = [teacher.cache for teacher in recipe.list_teachers()]
    teachers = [
        _add_cache(files, recipe, dataset, net, form, device) for net, form in zip(nets, forms, strict=True)
    ]
    return teachers[0] if len(nets) == 1 else EnsembleTeacher(teachers, [t.weight for t in recipe.teachers])


def _add_cache(
    files: TeacherFiles,
    recipe: Recipe,
    dataset: Dataset[Any],
    net: models.Net,
    form: CacheForm,
    device: torch.device,
) -> Teacher:
    """The teacher live, or with its cache where the method reads what one holds."""
    live = LiveTeacher(net, dataset.size, device, uses_bf16(recipe, device), form)
    if not recipe.reads_cacheable:
        return live
    return add_cache(live, recipe.data.index_views(dataset), files.cache_gib, device, files.cache)


def load_teachers(files: TeacherFiles, recipe: Recipe, dataset: Dataset[Any]) -> list[models.Net]:
    """Returns the teachers' nets, which know how the images that come are normalised."""
    nets = [
        load_teacher_net(teacher, place, len(dataset.classes), files.cache, files.download)
        for teacher, place in zip(recipe.list_teachers(), files.places, strict=True)
    ]
    for net in nets:
        net.set_input_statistics(dataset.mean, dataset.std)
    return nets


def load_teacher_net(
    teacher: TeacherSpec, place: str, classes: int, cache: Path | None = None, download: bool = False
) -> models.Net:
    """Returns the teacher whose weights, as they teach, lie at `place`; see `make_started`."""
    return make_started(teacher.with_weights(place), classes, cache, download)
