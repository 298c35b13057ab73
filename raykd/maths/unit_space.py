"""A search space as a unit cube, for models that need numbers.

A point of the cube has one coordinate a field: where its value stands in its range, by the logarithm where
the range is logarithmic, or the place of its choice. As a model's input each choice becomes a column of its
own (one-hot, at CHOICE_SIZE), and a field that is not active, the middle of its range: two points without a
field do not differ in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raykd.spec import Choice, Dimension, Range, Scalar

Array = NDArray[np.float64]
CHOICE_SIZE = 0.7


class UnitSpace:
    """Points of a space [n, fields] in the unit cube.

    Args:
        space: The space, parents before what they make active.
    """

    def __init__(self, space: Mapping[str, Dimension]) -> None:
        self._space = dict(space)
        self.num_fields = len(self._space)

    def to_units(self, points: Sequence[Mapping[str, Scalar]]) -> Array:
        """Returns coordinates [n, fields] of points; of fields that they lack, the middle."""
        units = np.full((len(points), self.num_fields), 0.5)
        for column, (path, dimension) in enumerate(self._space.items()):
            known = [place for place, point in enumerate(points) if path in point]
            units[known, column] = _locate(dimension, [points[place][path] for place in known])
        return units

    def to_params(self, unit: Array) -> dict[str, Scalar]:
        """Returns the values of all fields, those that are not active too, at coordinates [fields]."""
        return {path: _pick(self._space[path], float(u)) for path, u in zip(self._space, unit, strict=True)}

    def to_inputs(self, unit: Array) -> Array:
        """Returns a model's inputs [n, columns] for coordinates [n, fields], at values of the ranges."""
        columns: list[Array] = []
        places = dict(zip(self._space, unit.T, strict=True))
        for path, dimension in self._space.items():
            active = np.ones(len(unit), dtype=bool)
            for parent, value in dimension.conditions:
                choices = self._space[parent]
                assert isinstance(choices, Choice)
                active &= _choose(choices, places[parent]) == choices.values.index(value)
            if isinstance(dimension, Choice):
                chosen = _choose(dimension, places[path])
                columns += [CHOICE_SIZE * (active & (chosen == k)) for k in range(len(dimension.values))]
            else:
                columns.append(np.where(active, _snap(dimension, places[path]), 0.5))
        return np.stack(columns, axis=1)


def _locate(dimension: Dimension, values: list[Scalar]) -> Array:
    if isinstance(dimension, Choice):
        places = [dimension.values.index(value) for value in values]
        return (np.array(places) + 0.5) / len(dimension.values)
    low, high = _ends(dimension)
    located: Array = (_scale(dimension, np.array(values, dtype=float)) - low) / (high - low)
    return located


def _pick(dimension: Dimension, unit: float) -> Scalar:
    if isinstance(dimension, Choice):
        return dimension.values[int(_choose(dimension, np.array([unit]))[0])]
    value = float(_round(dimension, np.array([unit]))[0])
    return round(value) if dimension.integer else value


def _choose(dimension: Choice, unit: Array) -> NDArray[np.int64]:
    count = len(dimension.values)
    return np.minimum((unit * count).astype(np.int64), count - 1)


def _snap(dimension: Range, unit: Array) -> Array:
    low, high = _ends(dimension)
    snapped: Array = (_scale(dimension, _round(dimension, unit)) - low) / (high - low)
    return snapped


def _round(dimension: Range, unit: Array) -> Array:
    """The values of the range that are nearest to coordinates."""
    low, high = _ends(dimension)
    value = low + unit * (high - low)
    value = np.exp(value) if dimension.log else value
    step = dimension.step or (1 if dimension.integer else None)
    if step is not None:
        count = np.floor((dimension.high - dimension.low) / step + 1e-9)
        value = dimension.low + step * np.clip(np.round((value - dimension.low) / step), 0, count)
    return np.clip(value, dimension.low, dimension.high)


def _ends(dimension: Range) -> tuple[float, float]:
    return float(_scale(dimension, dimension.low)), float(_scale(dimension, dimension.high))


def _scale(dimension: Range, value: float | Array) -> Any:
    return np.log(value) if dimension.log else value
