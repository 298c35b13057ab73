"""The boundary points of a search space: a search may draw them, so a trial must be possible at each."""

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache

import torch

from raykd import methods, models
from raykd.batch import MethodContext, OutputShapes
from raykd.data import DatasetInfo
from raykd.errors import UserError, validate
from raykd.metric import METRICS
from raykd.spec import Choice, Dimension, Scalar, apply_params
from raykd.study.nets import NetSpec
from raykd.study.recipe import Recipe
from raykd.study.space import draw
from raykd.study.students import bind_branches
from raykd.study.study import Study
from raykd.teachers.cache_file import count_row_bytes
from raykd.teachers.cache_form import CacheForm
from raykd.teachers.ensemble import merge_shapes


def check(study: Study, info: DatasetInfo) -> int:
    """Returns the number of boundary points; a trial can begin at each.

    At a boundary point one field has an end of its range, or one of its choices, and all others are as in the
    paper (where it calls for a part that the paper has not, that part's fields have the first of theirs). Two
    values that only together are impossible are not found.

    Raises:
        UserError: Every value by which a drawn trial, or its retraining, could never begin.
    """
    check_metric(study, info)
    check_views(study, info)
    errors: dict[tuple[str, str], list[Scalar]] = {}
    count = 0
    for path, value, point in boundary_points(study):
        count += 1
        for line in _find_errors(study, point, info):
            errors.setdefault((path, line), []).append(value)
    if errors:
        raise UserError(
            f"space/{path} = {', '.join(map(str, values))}: no trial could begin: {line}"
            for (path, line), values in errors.items()
        )
    return count


def check_metric(study: Study, info: DatasetInfo) -> None:
    """Raises UserError where the metric is 100 % whatever a net answers."""
    if study.search.metric == "top5" and info.classes <= 5:
        others = ", ".join(name for name in METRICS if name != "top5")
        raise UserError([f"search/objectives = top5: always 100 % of {info.classes} classes; take {others}"])


def check_views(study: Study, info: DatasetInfo) -> None:
    """Checks what is kept of the teacher's outputs.

    Raises:
        UserError: Those for `data/views` views of each image do not fit their disk, or have no such form.
    """
    for teacher in study.recipe.list_teachers():
        try:
            teacher.cache.check(output_shapes(teacher, info))
        except ValueError as error:
            raise UserError([f"recipe/{'teacher' if study.recipe.teacher else 'teachers'}/{error}"]) from None
    views, gib = study.recipe.data.views, study.cluster.teacher_cache_gib
    view_bytes = count_view_bytes(study, info)
    needed = (views or 0) * view_bytes / 2**30
    if needed > gib:
        raise UserError(
            [
                f"recipe/data/views = {views}: the teacher's outputs take {needed:.1f} GiB "
                f"of a node's disk, {int(gib * 2**30 / view_bytes)} views fit "
                f"cluster/teacher_cache_gib = {gib:g} (0: none are kept)"
            ]
        )


def describe_views(study: Study, info: DatasetInfo) -> str:
    """Returns in words how many views' outputs a node keeps, and what that saves; "" if none."""
    view_bytes, views, epochs = count_view_bytes(study, info), study.recipe.data.views, study.recipe.epochs
    if not view_bytes:
        return ""
    room = int(study.cluster.teacher_cache_gib * 2**30 / view_bytes)
    words = f"{view_bytes / 2**20:,.1f} MiB for a view of each image: {room:,} views fit"
    if views is None:
        return words + " (data/views says how many may be drawn)"
    passes = views * (1 - (1 - 1 / views) ** epochs)  # distinct views of an image in a trial, on average
    return words + f"; of {views}, the first trial's teacher passes {passes:.0f} for {epochs} epochs"


def count_view_bytes(study: Study, info: DatasetInfo, form: CacheForm | None = None) -> int:
    """Returns the bytes of the teacher's outputs for a view of each image; 0 where none are kept.

    In a form, or (None) in those of the recipe.
    """
    recipe = study.recipe
    if not study.cluster.teacher_cache_gib or not recipe.reads_cacheable:
        return 0
    shapes = [output_shapes(teacher, info) for teacher in recipe.list_teachers()]
    forms = [form or teacher.cache for teacher in recipe.list_teachers()]
    row_bytes = sum(
        count_row_bytes(kept.count_bytes(shape)) for kept, shape in zip(forms, shapes, strict=True)
    )
    return row_bytes * info.images * recipe.data.rotations


def boundary_points(study: Study) -> Iterator[tuple[str, Scalar, dict[str, Scalar]]]:
    """Yields (path, its value, the point)."""
    space, paper = study.search_space(), study.paper_point()
    for path, dimension in space.items():
        for value in boundary_values(dimension):
            yield path, value, _make_point(space, paper, dict(dimension.conditions) | {path: value})


def _make_point(
    space: dict[str, Dimension], paper: dict[str, Scalar], params: dict[str, Scalar]
) -> dict[str, Scalar]:
    return draw(space, lambda path, dimension: (paper | params).get(path, boundary_values(dimension)[0]))


def boundary_values(dimension: Dimension) -> tuple[Scalar, ...]:
    """Returns a range's two ends, or all values of a choice."""
    if isinstance(dimension, Choice):
        return dimension.values
    number = int if dimension.integer else float
    return number(dimension.low), number(dimension.high)


def _find_errors(study: Study, point: dict[str, Scalar], info: DatasetInfo) -> list[str]:
    try:
        recipe = validate(Recipe, apply_params(study.recipe.to_dict(), point), "recipe")
        _check_trial(recipe, info, study.worker_counts().values())
    except UserError as error:
        return error.lines
    except ValueError as error:
        return str(error).splitlines()
    return []


def _check_trial(recipe: Recipe, info: DatasetInfo, worker_counts: Iterable[int]) -> None:
    """ValueError when the method cannot serve the nets, or no batch can be made."""
    for workers in worker_counts:
        recipe.check_batch_size(workers, info.images)
    (student, *peers), teachers = (
        [output_shapes(spec, info) for spec in specs]
        for specs in (recipe.list_students(), recipe.list_teachers())
    )
    with torch.device("meta"):
        labels = torch.zeros(info.images, dtype=torch.int64)
        branches = bind_branches(recipe.list_students(), info.classes)
        context = MethodContext(student, merge_shapes(teachers), labels, tuple(peers), branches)
        methods.make(recipe.method.name, context, recipe.method)


def output_shapes(spec: NetSpec, info: DatasetInfo) -> OutputShapes:
    """Returns what a net announces; it is built on no device at all."""
    return _measure_shapes(spec.net, json.dumps(spec.options), info.classes, info.size)


@lru_cache(maxsize=64)
def _measure_shapes(net: str, options: str, classes: int, size: int) -> OutputShapes:
    with torch.device("meta"):
        return models.make(net, classes, json.loads(options)).shapes(size)
