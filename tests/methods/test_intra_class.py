"""Intra-class contrast of a teacher's own training: its definition in loops, and where it may stand."""

import math
from typing import Any

import pytest
import torch
from support.small_trainer import make_trainer, recipe

from raykd.contract.synthetic_batch import CONTEXT, make_batch, show_twice
from raykd.errors import UserError
from raykd.methods import intra_class
from raykd.study.recipe import make_teacher_recipe
from raykd.study.study import Study

TRAIN: dict[str, Any] = {
    "epochs": 1, "method": {"name": "intra_class"}, "optimizer": {"batch_size": 32, "images_per_class": 2},
}  # fmt: skip


@pytest.mark.parametrize("loss", ["infonce", "hinge"])
def test_the_loss_is_that_of_loops(loss: str) -> None:
    batch = show_twice(make_batch(3))
    rows, images, labels = batch.student.embedding, batch.index.tolist(), batch.labels.tolist()
    total = 0.0
    for a in range(len(rows)):
        near = [float(torch.cosine_similarity(rows[a], row, dim=0)) for row in rows]
        (positive,) = [near[k] for k in range(len(rows)) if images[k] == images[a] and k != a]
        others = [near[k] for k in range(len(rows)) if labels[k] == labels[a] and images[k] != images[a]]
        assert len(others) == (0 if images.index(images[a]) == 4 else 2)
        if loss == "infonce":
            total += math.log(1 + sum(math.exp((s - positive + 0.1) / 0.2) for s in others))
        elif others:
            total += sum(max(0.0, s - positive + 0.1) for s in others) / len(others)
    config = intra_class.Config(loss=loss)
    term = intra_class.Method(config, CONTEXT)(batch)["contrast"]
    assert term.item() == pytest.approx(total / len(rows), rel=1e-4)


@pytest.mark.slow
def test_a_teachers_own_training_takes_the_method_with_two_views_an_image() -> None:
    teacher = {"net": "resnet8", "train": TRAIN}
    settings = recipe(method={"name": "kd"}, teacher=teacher)
    assert settings.teacher is not None
    trainer = make_trainer(make_teacher_recipe(settings, settings.teacher))
    batches = list(trainer.get_batches(1))
    assert len(batches) == trainer.steps_per_epoch >= 6  # 128 images, twice
    for batch in batches:
        assert torch.equal(batch.index[::2], batch.index[1::2])
        assert torch.equal(batch.labels[::4], batch.labels[2::4])
        assert (batch.images[::2] - batch.images[1::2]).abs().amax(dim=(1, 2, 3)).gt(0).float().mean() > 0.5
    (row,) = trainer.run()
    assert row["terms"]["contrast"] > 0
    plain = recipe(method={"name": "kd"}, teacher=teacher | {"train": {"epochs": 1}})
    assert plain.teacher is not None and make_teacher_recipe(plain, plain.teacher).method.name == "ce"


@pytest.mark.parametrize(
    ("name", "why"), [("kd", "needs a teacher itself"), ("dml", "trains several students")]
)
def test_a_teachers_own_training_takes_no_method_with_a_teacher(name: str, why: str) -> None:
    teacher = {"net": "resnet8", "train": {"method": {"name": name}}}
    plain = {"name": "s", "recipe": recipe().to_dict() | {"teacher": teacher}}
    with pytest.raises(UserError) as error:
        Study.parse(plain, "study.yaml")
    (line,) = error.value.lines
    assert f"method '{name}' {why}: a teacher's own training takes beed, ce, eed, intra_class" in line
