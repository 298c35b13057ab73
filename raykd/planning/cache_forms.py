"""What each form of a teacher's cache holds on a node's disk, and what it saves in seconds."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from raykd.batch import OutputShapes
from raykd.data import DatasetInfo, ViewIndex
from raykd.errors import UserError
from raykd.paths import get_cache_folder
from raykd.planning.cost import estimate_kept_fraction
from raykd.study.recipe import Recipe, check_form
from raykd.study.space_check import count_view_bytes, output_shapes
from raykd.study.study import Study
from raykd.teachers.cache_file import open_cache_file
from raykd.teachers.cache_form import CacheForm

FORMS = (
    CacheForm(),
    CacheForm(embedding="int8"),
    CacheForm(embedding="none"),
    CacheForm(top_logits=10, embedding="int8"),
    CacheForm(top_logits=10, embedding="none"),
)
ROWS, ROUNDS = 64, 5  # rows that are written and read at once, and how often


class RowSeconds(NamedTuple):
    """Of one view in a cache, on average."""

    write: float
    read: float


@dataclass(frozen=True)
class CacheFormPlan:
    """One form; seconds are None where nothing was measured, or views have no numbers."""

    form: str  # in words
    view_bytes: int  # of a view, of all teachers
    views: int  # of each image that fit
    live_seconds: float | None = None  # of the teachers' forward passes in the search, without a cache
    cached_seconds: float | None = None  # of passes, writing and reading with one
    pays_after_trials: float | None = None  # whole trials; None: never


def list_forms(recipe: Recipe, info: DatasetInfo) -> list[CacheForm]:
    """Returns the recipe's own form, first, and those others by which its method could be served."""
    shapes = [output_shapes(teacher, info) for teacher in recipe.list_teachers()]
    own = recipe.list_teachers()[0].cache if shapes else CacheForm()
    return [form for form in dict.fromkeys((own, *FORMS)) if form == own or _serves(form, recipe, shapes)]


def _serves(form: CacheForm, recipe: Recipe, shapes: Sequence[OutputShapes]) -> bool:
    try:
        check_form("", form, recipe.method.name)
        for one in shapes:
            form.check(one)
    except ValueError:
        return False
    return True


def measure_row_seconds(form: CacheForm, shapes: OutputShapes) -> RowSeconds | None:
    """Returns what writing and reading a view take here, on the CPU; None where no cache can be."""
    logits, embedding = torch.randn(ROWS, shapes.classes), torch.randn(ROWS, shapes.embedding)
    try:
        parent = get_cache_folder()
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix="plan-") as folder:
            width = form.count_bytes(shapes)
            cache = open_cache_file(parent / folder, "plan", ROUNDS * ROWS, width, 2**30)
            rows = np.arange(ROUNDS * ROWS).reshape(ROUNDS, ROWS)
            write = _time(lambda k: cache.write(rows[k], form.encode(logits, embedding).numpy()))
            read = _time(lambda k: form.decode(torch.from_numpy(cache.read(rows[k])[0]), shapes))
    except (OSError, UserError):
        return None
    return RowSeconds(write / ROWS, read / ROWS)


def _time(call: Callable[[int], object]) -> float:
    moments = [time.perf_counter()]
    for k in range(ROUNDS):
        call(k)
        moments.append(time.perf_counter())
    return median(np.diff(moments).tolist())


def plan_forms(
    study: Study, info: DatasetInfo, index: ViewIndex | None, seconds_per_view: float | None
) -> tuple[CacheFormPlan, ...]:
    """Returns what each form holds and saves, the recipe's own first; nothing where no outputs are kept.

    Args:
        study: Its search, recipe and share of the disk decide.
        info: Of the images that a trial trains on.
        index: The numbers of the views; None where they are not known, or have none.
        seconds_per_view: Of the teachers' forward passes.
    """
    plans: list[CacheFormPlan] = []
    teachers = study.recipe.list_teachers()
    if not count_view_bytes(study, info):
        return ()
    for form in list_forms(study.recipe, info):
        of_each_image = count_view_bytes(study, info, form)
        views = int(study.cluster.teacher_cache_gib * 2**30 / of_each_image)
        view_bytes = of_each_image // (info.images * study.recipe.data.rotations)
        plan = CacheFormPlan(form.describe(), view_bytes, views)
        if index is not None and seconds_per_view is not None:
            rows = [measure_row_seconds(form, output_shapes(teacher, info)) for teacher in teachers]
            if None not in rows:
                total = RowSeconds(*(sum(column) for column in zip(*filter(None, rows), strict=True)))
                plan = estimate_saving(plan, study, info, index, seconds_per_view, total)
        plans.append(plan)
    return tuple(plans)


def estimate_saving(
    plan: CacheFormPlan, study: Study, info: DatasetInfo, index: ViewIndex, forward: float, row: RowSeconds
) -> CacheFormPlan:
    """Returns the plan with its seconds.

    All trials of a search draw the same views, so the first one fills the cache for all. Views that do not
    fit are passed through the teachers in every trial.
    """
    recipe = study.recipe
    views = index.views // recipe.data.rotations  # ids of an image
    share = min(1.0, plan.views / views)
    drawn = info.images * recipe.data.rotations * recipe.epochs  # in one trial
    distinct = drawn / recipe.epochs * views * (1 - (1 - 1 / views) ** recipe.epochs)
    live = forward * drawn * study.count_trials() * estimate_kept_fraction(study)
    fill, read = distinct * (forward + row.write), row.read / forward * live
    cached = share * (fill + read) + (1 - share) * live
    pays = fill / (drawn * (forward - row.read)) if row.read < forward else None
    return replace(plan, live_seconds=live, cached_seconds=cached, pays_after_trials=pays)
