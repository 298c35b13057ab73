"""Studies of ImageNet's form, on real photographs: they train, resume, are planned."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.photographs import CPU, SIZE, photograph_settings

from raykd import data, models
from raykd.errors import UserError
from raykd.planning.plan import PlanOptions, make_plan
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.teachers.teacher import LiveTeacher
from raykd.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def recipe(**settings: Any) -> Recipe:
    base = {
        "data": photograph_settings().model_dump(mode="json"),
        "teacher": {"net": "resnet34", "weights": "unused.pth"},
        "student": {"net": "resnet18"},
        "method": {"name": "kd"},
        "epochs": 2,
        "optimizer": {"batch_size": 16, "lr": 0.01},
    }
    return Recipe.model_validate_json(json.dumps(base | settings))


def make_trainer(settings: Recipe, root: Path) -> Trainer:
    dataset = data.load(settings.data, root, False)
    torch.manual_seed(5)
    teacher = LiveTeacher(models.make("resnet34", 10), SIZE, CPU, False)
    return Trainer(settings, dataset, teacher, CPU)


def comparable_metrics(row: Any) -> dict[str, Any]:
    return {k: v for k, v in row.items() if "seconds" not in k and "per_second" not in k}


@pytest.mark.slow
def test_resnet34_teaches_resnet18_and_resumed_is_uninterrupted(data_root: Path) -> None:
    whole = make_trainer(recipe(), data_root)
    rows = [comparable_metrics(row) for row in whole.run()]
    assert all(torch.tensor(list(row["terms"].values())).isfinite().all() for row in rows)
    first, second = make_trainer(recipe(), data_root), make_trainer(recipe(), data_root)
    again = [comparable_metrics(next(first.run()))]
    second.load_state_dict(copy.deepcopy(first.state_dict()), {})
    again += [comparable_metrics(row) for row in second.run()]
    assert again == rows and [row["epoch"] for row in rows] == [1, 2]
    assert 0 <= whole.measure_test_metrics()["accuracy"] <= 100


@pytest.mark.slow
def test_photographs_are_learnt_and_banks_know_their_images(data_root: Path) -> None:
    """A bank's row of an image moves when the image was seen, and only then."""
    settings: dict[str, Any] = {"method": {"name": "crd", "negatives": 16}, "epochs": 4}
    settings["data"] = photograph_settings(images=40, holdout=0, area=0.5).model_dump(mode="json")
    trainer = make_trainer(recipe(**settings, optimizer={"batch_size": 16, "lr": 0.02}), data_root)
    bank = next(buffer for buffer in trainer.distiller.method.buffers() if buffer.shape == (40, 128))
    before = bank.clone()
    rows = list(trainer.run())
    seen = torch.cat([data.epoch_permutation(epoch, 0, 40)[:32] for epoch in (1, 2, 3, 4)]).unique()
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


def make_study(**data_settings: Any) -> Study:
    changed = {**STUDY["recipe"], "data": STUDY["recipe"]["data"] | data_settings}
    return Study.parse(STUDY | {"recipe": changed}, "study.yaml")


def test_a_plan_without_the_data(tmp_path: Path) -> None:
    options = PlanOptions(tmp_path, images_per_second=1000)
    plan = make_plan(make_study(), options)
    assert plan.images == 1_281_167 - 25_623 and plan.student_parameters == 4_231_976
    assert plan.bank_bytes == pytest.approx(2 * 4 * 128 * plan.images, rel=0.1)
    assert plan.trial_seconds is not None and plan.confirm_seconds is not None
    missing = "imagenet/train: no such folder. Expected: .*; --images-per-second or --probe plan without it"
    with pytest.raises(UserError, match=missing):
        make_plan(make_study(), PlanOptions(tmp_path))
    with pytest.raises(UserError, match="elsewhere/train: no such folder"):
        make_plan(make_study(path="elsewhere"), options)
    with pytest.raises(UserError, match="data/images = 9999999: there are 1281167 training images"):
        make_plan(make_study(images=9_999_999), options)


@pytest.mark.slow
def test_a_plan_with_data_is_measured(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(models.make("resnet50", 10).state_dict(), "resnet50.pth")
    data_settings = {"path": "clothing", "size": SIZE, "test": "test", "holdout": 0.2, "loaders": 1}
    plan = make_plan(make_study(**data_settings), PlanOptions(data_root))
    assert plan.images == 320 and plan.not_measured is None and plan.trial_seconds > 0
