"""The corners of a study's space: points that a search may draw, and that must make a possible lesson."""

from collections.abc import Iterator
from functools import lru_cache

import torch

from raykd import methods, models
from raykd.batch import Setting, Shapes
from raykd.data import Figures
from raykd.errors import BadInput, checked
from raykd.spec import Choice, Dimension, Scalar, apply
from raykd.study.recipe import Recipe
from raykd.study.space import draw
from raykd.study.study import Study


def check(study: Study, figures: Figures) -> int:
    """How many corners there are. BadInput names every value by which a drawn trial could never begin.

    At a corner one field has an end of its range, or one of its choices, and all others are as in the paper
    (where it calls for a part that the paper has not, that part's fields have the first of theirs). Two
    values that only together are impossible are not found.
    """
    wrong: dict[tuple[str, str], list[Scalar]] = {}
    count = 0
    for path, value, point in corners(study):
        count += 1
        for line in _mistakes(study, point, figures):
            wrong.setdefault((path, line), []).append(value)
    if wrong:
        raise BadInput(
            f"space/{path} = {', '.join(map(str, values))}: no trial could begin: {line}"
            for (path, line), values in wrong.items()
        )
    return count


def corners(study: Study) -> Iterator[tuple[str, Scalar, dict[str, Scalar]]]:
    """(path, its value, the point)."""
    space, paper = study.opened(), study.paper_point()
    for path, dimension in space.items():
        for value in ends(dimension):
            yield path, value, _with(space, paper, dict(dimension.when) | {path: value})


def _with(
    space: dict[str, Dimension], paper: dict[str, Scalar], wanted: dict[str, Scalar]
) -> dict[str, Scalar]:
    return draw(space, lambda path, dimension: (paper | wanted).get(path, ends(dimension)[0]))


def ends(dimension: Dimension) -> tuple[Scalar, ...]:
    """A range's two ends, all values of a choice."""
    if isinstance(dimension, Choice):
        return dimension.values
    number = int if dimension.integer else float
    return number(dimension.low), number(dimension.high)


def _mistakes(study: Study, point: dict[str, Scalar], figures: Figures) -> list[str]:
    try:
        recipe = checked(Recipe, apply(study.recipe.plain(), point), "recipe")
        _begin(recipe, figures, study.cluster.workers)
    except BadInput as error:
        return error.lines
    except ValueError as error:
        return str(error).splitlines()
    return []


def _begin(recipe: Recipe, figures: Figures, workers: int) -> None:
    """ValueError when the method cannot serve the nets, or no batch can be made."""
    size = recipe.optimizer.batch_size
    if size > figures.images:
        raise ValueError(f"optimizer/batch_size = {size} is more than the {figures.images} training images")
    if size % workers:
        raise ValueError(f"optimizer/batch_size = {size} cannot be shared evenly by {workers} workers")
    student = _shapes(recipe.student.net, figures.classes, figures.size)
    teacher = _shapes(recipe.teacher.net, figures.classes, figures.size) if recipe.teacher else NOTHING
    with torch.device("meta"):
        labels = torch.zeros(figures.images, dtype=torch.int64)
        methods.make(recipe.method.name, Setting(student, teacher, labels), recipe.method)


NOTHING = Shapes(0, 0, ())


@lru_cache(maxsize=64)
def _shapes(net: str, classes: int, size: int) -> Shapes:
    """What a net announces; it is built on no device at all."""
    with torch.device("meta"):
        return models.make(net, classes).shapes(size)
