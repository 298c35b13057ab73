"""Every method works: on real digits, with a real teacher, the student learns and the terms fall."""

import copy
import json
from dataclasses import replace
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
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher, NoTeacher, Teacher
from raykd.training.trainer import Trainer

CPU, SIZE = torch.device("cpu"), 16
LATE = ("at", "crd", "pckd", "vid", "wcord")  # they learn or their terms fall late: a margin anywhere
PEERS = [name for name in methods.names() if methods.get_class(name).students == "peers"]
TWICE = ("intra_class",)  # two views an image: twice the steps
ROTATED = ("pckd", "sskd")  # four views an image: fewer images in the same time


def recipe(name: str, **settings: Any) -> Recipe:
    rotations, teacher = 4 if name in ROTATED else 1, {"net": "resnet8", "weights": "trained below"}
    is_ensemble = methods.get_class(name).students == "members"
    plain = {
        "data": {"name": "digits", "images": 320, "holdout": 0.25, "padding": 1, "rotations": rotations},
        "student": {"net": "resnet8", "copies": 2 if name in PEERS else 1},
        "method": {"name": name},
        **({"teachers": [teacher, teacher]} if is_ensemble else {"teacher": teacher}),
        "epochs": 8 if name in LATE else 3 if name in TWICE else 5,
        "optimizer": {"batch_size": 16},
        "ema_decay": 0.9,
        "precision": "float32",
    }
    return Recipe.model_validate_json(json.dumps(plain | settings))


@cache
def load_digits() -> data.Dataset[Any]:
    """At 16 pixels, twice what was scanned: a quarter of the work."""
    dataset = data.load(recipe("ce").data, Path("unused"), False)
    parts = {name: getattr(dataset, name) for name in ("train", "heldout", "test")}
    halved = {name: replace(part, pixels=part.pixels[:, ::2, ::2]) for name, part in parts.items()}
    return replace(dataset, size=SIZE, **halved)


@cache
def teacher() -> Net:
    """Learnt digits for a few seconds: 88 to 91 %, by any processor's kernels and in either precision."""
    settings = recipe("ce", epochs=10)
    trainer = Trainer(settings, load_digits(), NoTeacher(), CPU)
    assert list(trainer.run())[-1]["accuracy"] > 60
    net = make("resnet8", 10)
    net.load_state_dict(trainer.ema_student.state_dict())
    return net


def sum_method_terms(trainer: Trainer, student: dict[str, Tensor]) -> float:
    """The weighted terms of the method as it stands, over some batches, for a student with these weights."""
    distiller = copy.deepcopy(trainer.distiller).train()
    distiller.student.load_state_dict(student)
    total = 0.0
    for batch in islice(trainer.get_batches(9), 6):
        with torch.no_grad():
            terms = copy.deepcopy(distiller)(batch, trainer.teacher.get_outputs(batch), torch.tensor(0.95))
        total += sum(
            trainer.step.loss_weights[name] * float(term) for name, term in terms.items() if name != "task"
        )
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.names())
def test_a_student_learns_digits_by_every_method(name: str) -> None:
    """Terms are compared under the same heads, banks and schedule: these move while a method learns."""
    torch.set_num_threads(1)
    settings = recipe(name)
    live: Teacher = LiveTeacher(teacher(), SIZE, CPU, False)
    shown = EnsembleTeacher([live, live], [1.0, 1.0]) if settings.teachers else live
    trainer = Trainer(settings, load_digits(), shown, CPU)
    untrained = copy.deepcopy(trainer.distiller.student.state_dict())
    rows = list(trainer.run())
    assert rows[-1]["accuracy"] > 30, [row["accuracy"] for row in rows]
    if name != "ce":
        assert sum_method_terms(trainer, trainer.distiller.student.state_dict()) < sum_method_terms(
            trainer, untrained
        )
