"""The loop: learns, resumes exactly, stops before a weight is spoilt, and is the same on two ranks."""

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support import gloo
from support.small_trainer import recipe, teaching, told

from raykd import methods
from raykd.study.optimizer import CosineDecay, Optimizer, StepDecay
from raykd.study.recipe import Recipe
from raykd.training import trainer
from raykd.training.nonfinite import Diverged


@pytest.mark.parametrize("name", ["dcd", "crd"])
def test_resumed_is_uninterrupted(name: str) -> None:
    chosen = recipe(method={"name": name})
    rows = [told(row) for row in teaching(chosen).epochs()]
    first = teaching(chosen)
    again = [told(next(first.epochs()))]
    state = copy.deepcopy(first.state_dict())
    second = teaching(chosen)
    second.load_state_dict(state, {})
    again += [told(row) for row in second.epochs()]
    assert again == rows and [row["epoch"] for row in rows] == [1, 2, 3]


@pytest.mark.slow
def test_large_banks_are_kept_apart_from_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "LARGE", 1000)
    chosen = recipe(method={"name": "crd"})
    rows = [told(row) for row in teaching(chosen).epochs()]
    first = teaching(chosen)
    next(first.epochs())
    state, banks = copy.deepcopy(first.state_dict()), copy.deepcopy(first.banks())
    assert set(banks) == {"method.memory.student", "method.memory.teacher"} and not set(banks) & set(
        state["lesson"]
    )
    second, empty = teaching(chosen), teaching(chosen)
    second.load_state_dict(state, banks)
    assert [told(row) for row in second.epochs()] == rows[1:]
    empty.load_state_dict(state, {})
    assert [row["epoch"] for row in empty.epochs()] == [2, 3]


@pytest.mark.slow
def test_digits_are_learnt() -> None:
    settings = {"data": {"name": "digits", "holdout": 0.2}, "epochs": 4, "optimizer": {"batch_size": 16}}
    rows = list(teaching(recipe(method={"name": "ce"}, **settings)).epochs())
    assert rows[-1]["accuracy"] > 50 and rows[-1]["terms"]["task"] < rows[0]["terms"]["task"]


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_term() -> None:
    wild = teaching(recipe(optimizer={"batch_size": 32, "lr": 1e30}))
    before = [p.detach().clone() for p in wild.lesson.student.parameters()]
    with pytest.raises(
        Diverged, match=r"loss term not finite: .*(task|contrast|consistency) = .*epoch 1, step"
    ):
        list(wild.epochs())
    assert all(p.isfinite().all() for p in before)


def test_weights_stay_as_they_were_until_the_host_looks() -> None:
    """As on a GPU, which the host asks for its losses only now and then."""
    late, last = teaching(recipe(averaging=0)), 3
    late.watch.every = 100
    watch, kept = late.watch.loss, []

    def spoilt(loss: Any, terms: Any, epoch: int, step: int) -> None:
        kept.append(copy.deepcopy(list(late.student.parameters())))
        bad = {**terms, "task": terms["task"] * float("nan")} if step == 1 else terms
        watch(sum(bad.values()), bad, epoch, step)

    late.watch.loss = spoilt  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=r"not finite: task = nan \(epoch 1, step 2 of 4\)"):
        list(late.epochs())
    assert len(kept) == last + 1 and not torch.equal(kept[0][0], kept[1][0])
    assert all(torch.equal(a, b) for a, b in zip(kept[1], late.student.parameters(), strict=True))


def diverging(chosen: Recipe) -> str:
    one = teaching(chosen)
    if one.rank == 1:
        one.weights = {name: weight * float("inf") for name, weight in one.weights.items()}
    with pytest.raises(Diverged) as error:
        next(one.epochs())
    return str(error.value)


@pytest.mark.slow
def test_all_ranks_stop_at_the_same_step_and_say_why() -> None:
    ranks = gloo.run(diverging, recipe(epochs=1))
    assert ranks[0] == ranks[1] and "their sum = inf (epoch 1, step 1 of 4)" in ranks[0]


def test_schedules_are_fractions_of_the_budget() -> None:
    step = [round(StepDecay().scale(epoch, 240), 9) for epoch in (1, 150, 151, 180, 181, 210, 211, 240)]
    assert step == [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert [round(StepDecay().scale(e, 16), 9) for e in (10, 11, 13, 15)] == [1, 0.1, 0.01, 0.001]
    assert CosineDecay().scale(1, 10) == 1 and CosineDecay().scale(6, 10) == pytest.approx(0.5)


def test_learnable_scalars_take_no_weight_decay() -> None:
    dcd = teaching(recipe()).lesson
    for settings, expected in ((Optimizer(), 0.0), (Optimizer(decay_scalars=True), 5e-4)):
        groups = settings.make(dcd).param_groups
        assert {g["weight_decay"] for g in groups for p in g["params"] if p.ndim == 0} == {expected}
        assert {g["weight_decay"] for g in groups for p in g["params"] if p.ndim > 0} == {5e-4}


def test_average_is_the_moving_average_of_weights_and_statistics() -> None:
    lesson = teaching(recipe(averaging=0.5, epochs=1))
    nets = []
    step = lesson._step

    def watched(*args: Any) -> Any:
        answer = step(*args)
        nets.append(copy.deepcopy(lesson.lesson.student.state_dict()))
        return answer

    lesson._step = watched  # type: ignore[method-assign]
    expected = copy.deepcopy(lesson.average.state_dict())
    next(lesson.epochs())
    for count, net in enumerate(nets):
        decay = min(0.5, count / (9 + count))
        expected = {k: decay * expected[k] + (1 - decay) * v for k, v in net.items()}
    for name, value in lesson.average.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def shared_epoch(chosen: Recipe) -> dict[str, Any]:
    one = teaching(chosen)
    row = told(next(one.epochs()))
    weights = torch.cat([p.detach().flatten() for p in one.lesson.parameters()])
    whole = one.test_accuracy()
    everywhere = [torch.empty_like(weights) for _ in range(one.world)] if one.world > 1 else [weights]
    if one.world > 1:
        dist.all_gather(everywhere, weights)
    return {"row": row, "test": whole, "apart": max(float((w - weights).abs().max()) for w in everywhere)}


@pytest.mark.slow
def test_two_ranks_share_the_batches_and_agree() -> None:
    ranks = gloo.run(shared_epoch, recipe(epochs=1))
    assert ranks[0]["row"] == ranks[1]["row"] and ranks[0]["test"] == ranks[1]["test"]
    assert ranks[0]["apart"] == 0
    alone = shared_epoch(recipe(epochs=1))
    # batch norm sees half batches, so the numbers are near, not equal
    assert ranks[0]["row"]["terms"]["task"] == pytest.approx(alone["row"]["terms"]["task"], rel=0.1)


@pytest.mark.parametrize("standard", [False, True])
def test_kd_beside_another_method_is_kd(standard: bool) -> None:
    beside = teaching(recipe(plus_kd={"weight": 2.0, "standardize": standard})).lesson
    alone = teaching(recipe(method={"name": "kd", "standardize": standard})).lesson
    one = teaching(recipe())
    batch = next(one._batches(1))
    alone.student.load_state_dict(beside.student.state_dict())
    view = one.teacher.view(batch)
    assert beside(batch, view, 0.0)["plus_kd"].item() == pytest.approx(alone(batch, view, 0.0)["kd"].item())
    assert recipe(plus_kd={"weight": 2.0}).weights()["plus_kd"] == 2.0


def test_a_batch_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size = 512 is more than the 128 training images"):
        teaching(recipe(optimizer={"batch_size": 512}))


def test_every_method_is_known_to_recipes() -> None:
    for name in methods.names():
        assert recipe(method={"name": name}).method == methods.config(name)()
