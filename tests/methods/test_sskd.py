"""SSKD: its terms by loops over the definition, and its two stages."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.oracles import kl_divergence
from support.small_trainer import make_trainer, recipe
from torch import Tensor
from torch.testing import assert_close

from raykd.batch import MethodBatch
from raykd.contract import gloo
from raykd.contract.synthetic_batch import (
    CONTEXT,
    average_over_ranks,
    list_tensors,
    make_batch,
    require_gradients,
    take_rank_share,
)
from raykd.maths.gather import num_ranks
from raykd.methods import sskd
from raykd.study.recipe import Recipe
from raykd.training.trainer import Trainer


def rotated_batch(seed: int = 0, progress: float = 0.5) -> MethodBatch:
    return replace(make_batch(seed, 4), progress=torch.tensor(progress))


def choose_easy(scores: Tensor, target: list[int], keep: float) -> list[int]:
    """As released: rows sorted by the rank of the target, all correct ones and a part of the others."""
    places = [row.argsort(descending=True).tolist().index(t) for row, t in zip(scores, target, strict=True)]
    wrong = sum(place > 0 for place in places)
    order = sorted(range(len(places)), key=lambda k: places[k])
    return order[: len(places) - wrong + int(wrong * keep)]


def test_sskd_by_loops() -> None:
    batch, config = rotated_batch(), sskd.Config(rotated_keep=0.5)
    method = sskd.Method(config, CONTEXT)
    terms = method(batch)
    s, t = batch.student, batch.teacher
    up, turned = range(0, 24, 4), [k for k in range(24) if k % 4]
    assert_close(
        terms["kd"].item(),
        sum(kl_divergence(s.logits[k], t.logits[k], 4.0) for k in up) / 6,
        rtol=1e-4,
        atol=0,
    )
    rows = choose_easy(t.logits[turned], batch.labels[turned].tolist(), 0.5)
    losses = [kl_divergence(s.logits[turned[k]], t.logits[turned[k]], 4.0) for k in rows]
    assert len(rows) < 18
    assert_close(terms["rotated"].item(), sum(losses) / len(rows), rtol=1e-4, atol=0)
    student_scores, teacher_scores = (
        torch.stack([torch.stack([torch.cosine_similarity(x[k], x[u], dim=0) for u in up]) for k in turned])
        for x in (method.student_head(s.embedding), method.teacher_head(t.embedding))
    )
    rows = choose_easy(teacher_scores, [k // 4 for k in turned], 0.75)
    losses = [kl_divergence(student_scores[k], teacher_scores[k], 0.5) for k in rows]
    assert_close(terms["similarity"].item(), sum(losses) / len(rows), rtol=1e-4, atol=0)
    loss = method(replace(batch, progress=torch.tensor(0.1)))["teacher_head"]
    logs = [teacher_scores[j].log_softmax(0)[k // 4] for j, k in enumerate(turned)]
    assert_close(loss, -torch.stack(logs).mean())


STAGED = recipe(
    data={"name": "digits", "images": 20, "holdout": 0.2, "rotations": 4},
    method={"name": "sskd", "teacher_stage": 0.8},
    optimizer={"batch_size": 8, "lr": 0.01},
    epochs=5,
    precision="float32",
)


def run_staged(trainer: Trainer, epochs: int) -> dict[str, Tensor]:
    """The heads after so many epochs more."""
    for _ in zip(range(epochs), trainer.run(), strict=False):
        pass
    heads = trainer.distiller.method.state_dict().items()
    return {name: weight.clone() for name, weight in heads}


def select_head(heads: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: weight for key, weight in heads.items() if key.startswith(name)}


def train_teachers_head(trainer: Trainer) -> dict[str, Tensor]:
    """As student.py of the release does it: the head alone, a tenth of the rate after 2 and 3 of 4 epochs."""
    head: Any = trainer.distiller.method.teacher_head
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    for epoch in (1, 2, 3, 4):
        for batch in trainer.get_batches(epoch):
            features = head(trainer.teacher.get_outputs(batch).embedding)
            upright, turned = features[::4], [k for k in range(len(features)) if k % 4]
            scores = torch.cosine_similarity(features[turned][:, None], upright[None], dim=2)
            optimizer.zero_grad()
            F.cross_entropy(scores, torch.tensor(turned) // 4).backward()
            optimizer.step()
        schedule.step()
    return {f"teacher_head.{name}": weight for name, weight in head.state_dict().items()}


@pytest.mark.slow
def test_the_teachers_head_follows_a_schedule_of_its_own_and_the_students_waits() -> None:
    trainer = make_trainer(STAGED)
    before = run_staged(trainer, 0)
    after_stage = run_staged(trainer, 4)
    expected = train_teachers_head(make_trainer(STAGED))
    assert_close(select_head(after_stage, "teacher_head"), expected, rtol=1e-4, atol=1e-6)
    student = select_head(before, "student_head")
    assert_close(select_head(after_stage, "student_head"), student, rtol=0, atol=0)
    head: Any = trainer.distiller.method.student_head
    assert not any(weight in trainer.step.optimizer.state for weight in head.parameters())  # no momentum yet
    at_end = run_staged(trainer, 1)
    teacher = select_head(after_stage, "teacher_head")
    assert_close(select_head(at_end, "teacher_head"), teacher, rtol=0, atol=0)
    assert all(not weight.equal(student[name]) for name, weight in at_end.items() if name in student)


def test_the_rates_of_the_release_are_those_of_its_epochs() -> None:
    method = sskd.Method(sskd.Config(), CONTEXT)
    for num_epochs in (300, 240, 125, 7):
        for epoch in range(num_epochs):
            released = epoch * 300 / num_epochs  # epochs of 300 that are behind
            steps = sum(released > milestone - 1e-6 for milestone in (30, 45))
            teacher = method.teacher_rate(epoch / num_epochs, 0.01)
            assert teacher == (pytest.approx(0.05 / 10**steps) if released < 60 - 1e-6 else 0)
            assert method.student_rate(epoch / num_epochs, 0.01) == (0 if released < 60 - 1e-6 else 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [2, 4])
def test_sskd_goes_on_exactly_within_and_after_the_teachers_stage(epochs: int) -> None:
    trainer, resumed = make_trainer(STAGED), make_trainer(STAGED)
    run_staged(trainer, epochs)
    resumed.load_state_dict(copy.deepcopy(trainer.state_dict()), trainer.large_banks())
    assert_close(run_staged(resumed, 5 - epochs), run_staged(trainer, 5 - epochs), rtol=0, atol=0)


def run_both_stages(settings: Recipe) -> list[dict[str, Tensor]]:
    trainer = make_trainer(settings)
    return [run_staged(trainer, 4), run_staged(trainer, 1)]


@pytest.mark.slow
def test_the_stages_of_sskd_on_two_ranks_are_those_of_one_process() -> None:
    settings = STAGED.model_copy(update={"batch_norm": "synced"})
    stages = run_both_stages(settings)
    for rank in gloo.run(run_both_stages, settings):
        assert_close(rank, stages, rtol=1e-3, atol=1e-5)


def run_teacher_stage(batches: list[MethodBatch]) -> list[Any]:
    torch.manual_seed(0)
    method, results = sskd.Method(sskd.Config(), CONTEXT), []
    for global_batch in batches:
        method.zero_grad()
        batch = require_gradients(take_rank_share(global_batch))
        loss = sum(method(batch).values())
        loss.backward()
        assert all(x.grad is None for x in list_tensors(batch.teacher))
        results.append(
            [
                average_over_ranks(loss.detach()),
                *(average_over_ranks(w.grad) for w in method.teacher_head.parameters()),
            ]
        )
    return results


def test_the_first_stage_of_sskd_on_two_ranks_is_that_of_one_process() -> None:
    assert num_ranks() == 1
    batches = [rotated_batch(seed, progress=0.1) for seed in (0, 1)]
    for rank in gloo.run(run_teacher_stage, batches):
        assert_close(rank, run_teacher_stage(batches), rtol=1e-4, atol=1e-6)
