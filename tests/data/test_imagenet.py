"""Studies of ImageNet's form, on real photographs: they teach, resume, are planned."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.photographs import CPU, SIZE, photographs

from raykd import data, models
from raykd.errors import BadInput
from raykd.planning.plan import plan
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.teachers.teacher import LiveTeacher
from raykd.training.trainer import Teaching


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def recipe(**settings: Any) -> Recipe:
    base = {
        "data": photographs().model_dump(mode="json"),
        "teacher": {"net": "resnet34", "weights": "unused.pth"},
        "student": {"net": "resnet18"},
        "method": {"name": "kd"},
        "epochs": 2,
        "optimizer": {"batch_size": 16, "lr": 0.01},
    }
    return Recipe.model_validate_json(json.dumps(base | settings))


def teaching(chosen: Recipe, root: Path) -> Teaching:
    dataset = data.load(chosen.data, root, False)
    torch.manual_seed(5)
    teacher = LiveTeacher(models.make("resnet34", 10), SIZE, CPU, False)
    return Teaching(chosen, dataset, teacher, CPU)


def told(row: Any) -> dict[str, Any]:
    return {k: v for k, v in row.items() if "seconds" not in k and "per_second" not in k}


@pytest.mark.slow
def test_resnet34_teaches_resnet18_and_resumed_is_uninterrupted(data_root: Path) -> None:
    whole = teaching(recipe(), data_root)
    rows = [told(row) for row in whole.epochs()]
    assert all(torch.tensor(list(row["terms"].values())).isfinite().all() for row in rows)
    first, second = teaching(recipe(), data_root), teaching(recipe(), data_root)
    again = [told(next(first.epochs()))]
    second.load_state_dict(copy.deepcopy(first.state_dict()), {})
    again += [told(row) for row in second.epochs()]
    assert again == rows and [row["epoch"] for row in rows] == [1, 2]
    assert 0 <= whole.test_accuracy() <= 100


@pytest.mark.slow
def test_photographs_are_learnt_and_banks_know_their_images(data_root: Path) -> None:
    """A bank's row of an image moves when the image was seen, and only then."""
    settings: dict[str, Any] = {"method": {"name": "crd", "negatives": 16}, "epochs": 4}
    settings["data"] = photographs(images=40, holdout=0, area=0.5).model_dump(mode="json")
    lesson = teaching(recipe(**settings, optimizer={"batch_size": 16, "lr": 0.02}), data_root)
    bank = next(buffer for buffer in lesson.lesson.method.buffers() if buffer.shape == (40, 128))
    before = bank.clone()
    rows = list(lesson.epochs())
    seen = torch.cat([data.order(epoch, 0, 40)[:32] for epoch in (1, 2, 3, 4)]).unique()
    moved = (bank != before).any(1).nonzero().flatten()
    assert torch.equal(moved, seen)
    assert rows[-1]["terms"]["task"] < rows[0]["terms"]["task"]


STUDY: dict[str, Any] = {
    "name": "imagenet",
    "recipe": {
        "data": {"name": "imagenet", "holdout": 0.02},
        "teacher": {"net": "resnet50", "weights": "resnet50.pth"},
        "student": {"net": "MobileNetV1"},
        "method": {"name": "crd"},
        "epochs": 100,
        "optimizer": {"batch_size": 256, "lr": 0.1},
    },
}


def study(**of_data: Any) -> Study:
    changed = {**STUDY["recipe"], "data": STUDY["recipe"]["data"] | of_data}
    return Study.parse(STUDY | {"recipe": changed}, "study.yaml")


def test_a_plan_without_the_data(tmp_path: Path) -> None:
    made = plan(study(), tmp_path, False)
    assert made.images == 1_281_167 - 25_623 and made.student_parameters == 4_231_976
    assert made.bank_bytes == pytest.approx(2 * 4 * 128 * made.images, rel=0.1)
    assert made.step_seconds is made.trial_seconds is made.search_seconds is made.confirm_seconds is None
    assert made.not_measured is not None and "imagenet/train: no such folder. Expected: " in made.not_measured
    with pytest.raises(BadInput, match="elsewhere/train: no such folder"):
        plan(study(path="elsewhere"), tmp_path, False)
    with pytest.raises(BadInput, match="data/images = 9999999: there are 1281167 training images"):
        plan(study(images=9_999_999), tmp_path, False)


@pytest.mark.slow
def test_a_plan_with_data_is_measured(data_root: Path) -> None:
    of_data = {"path": "clothing", "size": SIZE, "test": "test", "holdout": 0.2, "loaders": 1}
    made = plan(study(**of_data), data_root, False)
    assert made.images == 320 and made.not_measured is None and made.trial_seconds > 0
