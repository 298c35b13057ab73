"""Students that teach one another in one trial: each by itself, resumed exactly, the first one deployed."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_trainer import CPU, comparable_metrics, make_trainer, recipe

from raykd.contract import gloo
from raykd.driver.confirm import make_control
from raykd.errors import UserError
from raykd.planning.plan import PlanOptions, make_plan
from raykd.study.recipe import Recipe
from raykd.study.study import Study
from raykd.training.evaluation import measure_accuracy
from raykd.training.trainer import Trainer

TWO: dict[str, Any] = {
    "student": {"net": "resnet8"}, "peers": [{"net": "resnet14"}], "method": {"name": "mcl"},
    "optimizer": {"batch_size": 32, "images_per_class": 2}, "epochs": 2,
}  # fmt: skip


@pytest.mark.slow
def test_students_are_drawn_apart_and_each_has_its_metrics() -> None:
    trainer = make_trainer(recipe(**TWO | {"student": {"net": "resnet8", "copies": 2}}))
    first, second, third = trainer.distiller.list_students()
    assert not torch.equal(first.conv1.weight, second.conv1.weight) and first is trainer.student
    before = copy.deepcopy(third.state_dict())
    rows = list(trainer.run())
    assert all(len(row["peer_accuracies"]) == 2 for row in rows)
    assert not torch.equal(before["conv1.weight"], third.state_dict()["conv1.weight"])
    for net, accuracy in zip(trainer.list_ema_peers(), rows[-1]["peer_accuracies"], strict=True):
        assert measure_accuracy(net, trainer.source, trainer.dataset.heldout, False) == accuracy
    assert len(trainer.measure_peer_test_accuracies()) == 2


def test_the_task_is_the_sum_over_students() -> None:
    trainer = make_trainer(recipe(**TWO))
    batch = next(trainer.get_batches(1))
    losses = [
        torch.nn.functional.cross_entropy(copy.deepcopy(net).train()(batch.images).logits, batch.labels)
        for net in trainer.distiller.list_students()
    ]
    trainer.distiller.train()
    terms = trainer.distiller(batch, trainer.teacher.get_outputs(batch), torch.tensor(0.0))
    torch.testing.assert_close(terms["task"], sum(losses))


@pytest.mark.slow
def test_resumed_students_are_uninterrupted_ones() -> None:
    settings = recipe(**TWO)
    rows = [comparable_metrics(row) for row in make_trainer(settings).run()]
    first, second = make_trainer(settings), make_trainer(settings)
    again = [comparable_metrics(next(first.run()))]
    second.load_state_dict(copy.deepcopy(first.state_dict()), {})
    assert again + [comparable_metrics(row) for row in second.run()] == rows


def list_batches(settings: Recipe) -> list[list[int]]:
    return [batch.index.tolist() for batch in make_trainer(settings).get_batches(1)]


@pytest.mark.slow
def test_the_number_of_workers_changes_no_batch() -> None:
    settings = recipe(**TWO)
    alone = list_batches(settings)
    assert all(len(set(batch)) == len(batch) == 32 for batch in alone)
    shares = zip(*gloo.run(list_batches, settings), strict=True)
    assert [a + b for a, b in shares] == alone


def test_a_control_trains_the_first_student_by_itself() -> None:
    control = make_control(recipe(**TWO | {"student": {"net": "resnet8", "copies": 2}}), "kd")
    assert [spec.net for spec in control.list_students()] == ["resnet8"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"student": {"net": "resnet8", "copies": 2}, "method": {"name": "kd"}},
            "student/copies = 2: method 'kd' needs a teacher and trains one student; students teach one "
            "another by dml, lmcl, mcl",
        ),
        ({"peers": [{"net": "resnet8"}], "method": {"name": "ce"}}, "peers (1): method 'ce' trains one"),
        (
            {"method": {"name": "mcl"}},
            "method 'mcl' needs students that teach one another: say student/copies",
        ),
        (
            {"student": {"net": "resnet8", "copies": 2, "weights": "a.pth"}, "method": {"name": "dml"}},
            "copies = 2 of one net with its weights would stay alike; head = new draws apart",
        ),
        (
            TWO | {"optimizer": {"batch_size": 36, "accumulate": 4, "images_per_class": 2}},
            "images_per_class = 2: a worker's 9 images, each in 4 micro-batches are no whole number",
        ),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], message: str) -> None:
    plain = {"name": "s", "recipe": recipe().to_dict() | settings}
    with pytest.raises(UserError) as error:
        Study.parse(plain, "study.yaml")
    (line,) = error.value.lines
    assert message in line


def test_a_class_of_one_image_is_refused_at_plan_time(tmp_path: Path) -> None:
    few = recipe(**TWO | {"data": {"name": "digits", "images": 12, "holdout": 0.0}, "optimizer": {
        "batch_size": 4, "images_per_class": 2
    }})  # fmt: skip
    with pytest.raises(UserError) as error:
        make_plan(Study.parse({"name": "s", "recipe": few.to_dict()}, "study.yaml"), PlanOptions(tmp_path))
    (line,) = error.value.lines
    assert line.startswith("optimizer/images_per_class = 2: class '0' has 1 training image")


def test_each_student_begins_with_its_own_weights() -> None:
    trainer = make_trainer(recipe(**TWO))
    states = [copy.deepcopy(net.state_dict()) for net in trainer.distiller.list_students()]
    begun = Trainer(recipe(**TWO | {"seed": 1}), trainer.dataset, trainer.teacher, CPU, states)
    for net, state in zip(begun.distiller.list_students(), states, strict=True):
        torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
