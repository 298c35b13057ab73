"""Every method teaches: on real digits, with a real teacher, the student learns and the terms fall."""

import copy
import json
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raykd import data, methods
from raykd.models import Net, make
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.trainer import Teaching

CPU = torch.device("cpu")
ROTATED = ("pckd", "sskd")  # four views an image: fewer images in the same time


def recipe(name: str, **settings: Any) -> Recipe:
    rotations = 4 if name in ROTATED else 1
    plain = {
        "data": {"name": "digits", "images": 320, "holdout": 0.25, "padding": 1, "rotations": rotations},
        "teacher": {"net": "resnet8", "weights": "trained below"},
        "student": {"net": "resnet8"},
        "method": {"name": name},
        "epochs": 5,
        "optimizer": {"batch_size": 16},
        "averaging": 0.9,
    }
    return Recipe.model_validate_json(json.dumps(plain | settings))


@cache
def teacher() -> Net:
    """Learnt digits for a few seconds."""
    chosen = recipe("ce", epochs=6)
    learning = Teaching(chosen, data.load(chosen.data, Path("unused"), False), NoTeacher(), CPU)
    assert list(learning.epochs())[-1]["accuracy"] > 60
    net = make("resnet8", 10)
    net.load_state_dict(learning.average.state_dict())
    return net


def own_terms(teaching: Teaching, student: dict[str, Tensor]) -> float:
    """The weighted terms of the method as it stands, over some batches, for a student with these weights."""
    lesson = copy.deepcopy(teaching.lesson).train()
    lesson.student.load_state_dict(student)
    total = 0.0
    for batch in islice(teaching._batches(9), 6):
        with torch.no_grad():
            terms = copy.deepcopy(lesson)(batch, teaching.teacher.view(batch), 0.99)
        total += sum(teaching.weights[name] * float(term) for name, term in terms.items() if name != "task")
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.names())
def test_a_method_teaches_digits(name: str) -> None:
    """Terms are compared under the same heads, banks and schedule: these move while a method learns."""
    torch.set_num_threads(1)
    chosen = recipe(name)
    dataset = data.load(chosen.data, Path("unused"), False)
    teaching = Teaching(chosen, dataset, LiveTeacher(teacher(), 32, CPU, False), CPU)
    untaught = copy.deepcopy(teaching.lesson.student.state_dict())
    rows = list(teaching.epochs())
    assert rows[-1]["accuracy"] > 30, [row["accuracy"] for row in rows]
    if name != "ce":
        assert own_terms(teaching, teaching.lesson.student.state_dict()) < own_terms(teaching, untaught)
