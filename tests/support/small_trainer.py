"""Small recipes on real digits, and their trainers."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from raykd import data
from raykd.models import make
from raykd.study.recipe import Recipe
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.trainer import Trainer

CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "data": {"name": "digits", "images": 160, "holdout": 0.2},
    "teacher": {"net": "resnet14", "weights": "unused.pth"},
    "student": {"net": "resnet8"},
    "method": {"name": "dcd"},
    "epochs": 3,
    "optimizer": {"batch_size": 32},
    "precision": "float32",  # numbers are compared, on processors with bfloat16 too
}
LATENTBE: dict[str, Any] = {
    "method": {"name": "latentbe"},
    "teacher": None,
    "teachers": [BASE["teacher"]] * 3,
}


def recipe(**settings: Any) -> Recipe:
    return Recipe.model_validate_json(json.dumps(BASE | settings))


@cache
def load_digits(spec: data.Digits) -> data.Dataset[Any]:
    """The data set of these settings, read once."""
    return data.load(spec, Path("unused"), False)


def make_trainer(settings: Recipe) -> Trainer:
    torch.set_num_threads(1)
    dataset = load_digits(settings.data)
    if settings.method.name == "ce":
        return Trainer(settings, dataset, NoTeacher(), CPU)
    torch.manual_seed(5)
    live = [LiveTeacher(make("resnet14", 10), 32, CPU, False) for _ in settings.list_teachers() or [None]]
    teacher = EnsembleTeacher(live, [1.0] * len(live)) if settings.teachers else live[0]
    return Trainer(settings, dataset, teacher, CPU)


def comparable_metrics(row: Any) -> dict[str, Any]:
    """The metrics of an epoch that do not vary: no times, and not where the teacher's outputs came from."""
    return {k: v for k, v in row.items() if "second" not in k and not k.startswith("teacher_")}
