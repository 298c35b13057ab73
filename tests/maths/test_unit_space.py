"""A space as a unit cube: values there and back, and fields that are not active."""

import numpy as np
import pytest

from raykd.maths.unit_space import CHOICE_SIZE, UnitSpace
from raykd.spec import Choice, Dimension, Range

SPACE: dict[str, Dimension] = {
    "lr": Range(0.01, 1, log=True),
    "epochs": Range(1, 9, integer=True),
    "share": Range(0, 1, step=0.25),
    "kind": Choice(("a", "b", "c")),
    "weight": Range(0, 10, conditions=(("kind", "b"),)),
    "nesterov": Choice((True, False), conditions=(("kind", "c"),)),
}


def test_points_come_back_from_the_cube() -> None:
    points = [
        {"lr": 0.1, "epochs": 3, "share": 0.75, "kind": "b", "weight": 2.5},
        {"lr": 1.0, "epochs": 9, "share": 0.0, "kind": "c", "nesterov": False},
    ]
    space = UnitSpace(SPACE)
    units = space.to_units(points)
    assert units[0] == pytest.approx([0.5, 0.25, 0.75, 0.5, 0.25, 0.5])
    for point, unit in zip(points, units, strict=True):
        params = space.to_params(unit)
        assert {path: params[path] for path in point} == pytest.approx(point)
        assert isinstance(params["epochs"], int)


def test_every_coordinate_is_a_value_of_its_range_and_the_model_sees_that_value() -> None:
    space, units = UnitSpace(SPACE), np.random.default_rng(0).random((300, len(SPACE)))
    params = [space.to_params(unit) for unit in [*units, np.zeros(6), np.ones(6)]]
    for path, dimension in SPACE.items():
        assert all(dimension.contains(point[path]) for point in params)
    assert {point["epochs"] for point in params} == set(range(1, 10))
    assert {point["share"] for point in params} == {0, 0.25, 0.5, 0.75, 1}
    snapped = space.to_units([space.to_params(unit) for unit in units])
    assert space.to_inputs(units) == pytest.approx(space.to_inputs(snapped))


def test_points_do_not_differ_in_fields_that_are_not_active() -> None:
    space, units = UnitSpace(SPACE), np.full((2, len(SPACE)), 0.5)
    units[:, 3] = 0.1  # kind a
    units[1, 4:] = 0.9
    inputs = space.to_inputs(units)
    assert inputs[0] == pytest.approx(inputs[1])
    assert inputs[0] == pytest.approx([0.5, 0.5, 0.5, CHOICE_SIZE, 0, 0, 0.5, 0, 0])
    units[:, 3] = 0.5  # kind b
    inputs = space.to_inputs(units)
    assert np.flatnonzero(inputs[0] != inputs[1]).tolist() == [6]
