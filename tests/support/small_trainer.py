"""Small recipes on real digits, being taught."""

import json
from pathlib import Path
from typing import Any

import torch

from raykd import data
from raykd.models import make
from raykd.study.recipe import Recipe
from raykd.teachers.teacher import LiveTeacher, NoTeacher
from raykd.training.trainer import Teaching

CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "data": {"name": "digits", "images": 160, "holdout": 0.2},
    "teacher": {"net": "resnet14", "weights": "unused.pth"},
    "student": {"net": "resnet8"},
    "method": {"name": "dcd"},
    "epochs": 3,
    "optimizer": {"batch_size": 32},
}


def recipe(**settings: Any) -> Recipe:
    return Recipe.model_validate_json(json.dumps(BASE | settings))


def teaching(chosen: Recipe) -> Teaching:
    torch.set_num_threads(1)
    dataset = data.load(chosen.data, Path("unused"), False)
    if chosen.method.name == "ce":
        return Teaching(chosen, dataset, NoTeacher(), CPU)
    torch.manual_seed(5)
    return Teaching(chosen, dataset, LiveTeacher(make("resnet14", 10), 32, CPU, False), CPU)


def told(row: Any) -> dict[str, Any]:
    """What a row says of the learning: no times, and not where the teacher's answers came from."""
    return {k: v for k, v in row.items() if "second" not in k and not k.startswith("teacher_")}
