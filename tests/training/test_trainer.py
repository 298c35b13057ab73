"""The trainer: learns, resumes exactly, stops before a weight is spoilt, and is the same on two ranks."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.small_trainer import comparable_metrics, make_trainer, recipe

from raykd import methods
from raykd.contract import gloo
from raykd.study.optimizer import CosineDecay, Optimizer, StepDecay
from raykd.study.recipe import Recipe
from raykd.training import trainer as trainer_module
from raykd.training.evaluation import set_numerics
from raykd.training.nonfinite import NonFiniteLoss


@pytest.mark.slow
def test_an_epoch_in_bfloat16_is_near_the_one_in_float32() -> None:
    """On any processor: bfloat16 has 8 bits, so a term is off by some 2^-8, and the weights drift with it."""
    (wide,), (narrow,) = (
        list(make_trainer(recipe(epochs=1, precision=precision)).run())
        for precision in ("float32", "bfloat16")
    )
    assert narrow["terms"] != wide["terms"]
    assert narrow["terms"] == pytest.approx(wide["terms"], rel=0.05)


@pytest.fixture
def cudnn() -> Iterator[Any]:
    """cuDNN's settings, put back afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.conv.fp32_precision
    yield cudnn
    cudnn.deterministic, cudnn.conv.fp32_precision = before


@pytest.mark.parametrize(("bf16", "convolutions"), [(False, "ieee"), (True, "tf32")])
def test_float32_is_float32_on_a_gpu_too(cudnn: Any, bf16: bool, convolutions: str) -> None:
    set_numerics(torch.device("cuda"), bf16)
    assert cudnn.deterministic and cudnn.conv.fp32_precision == convolutions
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


TODAY = {  # the recipe of today
    "optimizer": {
        "name": "adamw", "lr": 1e-3, "batch_size": 32, "warmup": 0.2, "lr_updates": "step", "clip_norm": 1.0
    },
    "schedule": {"kind": "cosine"},
    "label_smoothing": 0.1,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [("dcd", {}), ("crd", {}), ("dcd", {"precision": "bfloat16"}), ("kd", TODAY)],
)
def test_resumed_is_uninterrupted(name: str, settings: dict[str, Any]) -> None:
    settings = recipe(method={"name": name}, **settings)
    rows = [comparable_metrics(row) for row in make_trainer(settings).run()]
    first = make_trainer(settings)
    again = [comparable_metrics(next(first.run()))]
    state = copy.deepcopy(first.state_dict())
    second = make_trainer(settings)
    second.load_state_dict(state, {})
    again += [comparable_metrics(row) for row in second.run()]
    assert again == rows and [row["epoch"] for row in rows] == [1, 2, 3]


@pytest.mark.slow
def test_large_banks_are_kept_apart_from_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "LARGE_BANK_BYTES", 1000)
    settings = recipe(method={"name": "crd"})
    rows = [comparable_metrics(row) for row in make_trainer(settings).run()]
    first = make_trainer(settings)
    next(first.run())
    state, banks = copy.deepcopy(first.state_dict()), copy.deepcopy(first.large_banks())
    assert set(banks) == {"method.memory.student", "method.memory.teacher"} and not set(banks) & set(
        state["distiller"]
    )
    second, empty = make_trainer(settings), make_trainer(settings)
    second.load_state_dict(state, banks)
    assert [comparable_metrics(row) for row in second.run()] == rows[1:]
    empty.load_state_dict(state, {})
    assert [row["epoch"] for row in empty.run()] == [2, 3]


@pytest.mark.slow
def test_digits_are_learnt() -> None:
    settings = {"data": {"name": "digits", "holdout": 0.2}, "epochs": 4, "optimizer": {"batch_size": 16}}
    rows = list(make_trainer(recipe(method={"name": "ce"}, **settings)).run())
    assert rows[-1]["accuracy"] > 50 and rows[-1]["terms"]["task"] < rows[0]["terms"]["task"]


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_term() -> None:
    wild = make_trainer(recipe(optimizer={"batch_size": 32, "lr": 1e30}))
    before = [p.detach().clone() for p in wild.distiller.student.parameters()]
    with pytest.raises(
        NonFiniteLoss, match=r"loss term not finite: .*(task|contrast|consistency) = .*epoch 1, step"
    ):
        list(wild.run())
    assert all(p.isfinite().all() for p in before)


def test_weights_stay_as_they_were_until_the_host_checks() -> None:
    """As on a GPU, whose losses the host checks only now and then."""
    late, last = make_trainer(recipe(ema_decay=0)), 3
    late.step.nonfinite_guard.check_every = 100
    add_loss, snapshots = late.step.nonfinite_guard.add_loss, []

    def add_spoilt_loss(values: Any, loss: Any, step: int) -> None:
        snapshots.append(copy.deepcopy(list(late.student.parameters())))
        if step == 1:
            values = torch.cat([values[:1] * float("nan"), values[1:]])  # the first is the task's
        late.step.nonfinite_guard.mark(values.sum())
        add_loss(values, values.sum(), step)

    late.step.nonfinite_guard.add_loss = add_spoilt_loss  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLoss, match=r"not finite: task = nan \(epoch 1, step 2 of 4\)"):
        list(late.run())
    assert len(snapshots) == last + 1 and not torch.equal(snapshots[0][0], snapshots[1][0])
    assert all(torch.equal(a, b) for a, b in zip(snapshots[1], late.student.parameters(), strict=True))


def raise_on_one_rank(settings: Recipe) -> str:
    trainer = make_trainer(settings)
    if trainer.rank == 1:
        trainer.step.loss_weights = {
            name: weight * float("inf") for name, weight in trainer.step.loss_weights.items()
        }
    with pytest.raises(NonFiniteLoss) as error:
        next(trainer.run())
    return str(error.value)


@pytest.mark.slow
def test_all_ranks_stop_at_the_same_step_and_say_why() -> None:
    ranks = gloo.run(raise_on_one_rank, recipe(epochs=1))
    assert ranks[0] == ranks[1] and "their sum = inf (epoch 1, step 1 of 4)" in ranks[0]


def test_schedules_are_fractions_of_the_budget() -> None:
    step = [round(StepDecay().scale(epoch, 240), 9) for epoch in (1, 150, 151, 180, 181, 210, 211, 240)]
    assert step == [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert [round(StepDecay().scale(e, 16), 9) for e in (10, 11, 13, 15)] == [1, 0.1, 0.01, 0.001]
    assert CosineDecay().scale(1, 10) == 1 and CosineDecay().scale(6, 10) == pytest.approx(0.5)


def test_learnable_scalars_take_no_weight_decay() -> None:
    dcd = make_trainer(recipe()).distiller
    for settings, expected in ((Optimizer(), 0.0), (Optimizer(decay_scalars=True), 5e-4)):
        groups = settings.make(dcd).param_groups
        assert {g["weight_decay"] for g in groups for p in g["params"] if p.ndim == 0} == {expected}
        assert {g["weight_decay"] for g in groups for p in g["params"] if p.ndim > 0} == {5e-4}


def test_gradients_are_clipped_by_their_common_norm() -> None:
    trainer = make_trainer(recipe(optimizer={"batch_size": 32, "clip_norm": 1e-3}))
    trainer.train_step(1, 0, trainer.get_batches(1))
    gradients = [p.grad for p in trainer.distiller.parameters() if p.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_is_the_mean_over_smoothed_labels(smoothing: float) -> None:
    trainer = make_trainer(recipe(label_smoothing=smoothing))
    batch = next(trainer.get_batches(1))
    logits = copy.deepcopy(trainer.student)(batch.images).logits
    labels = torch.nn.functional.one_hot(batch.labels, 10) * (1 - smoothing) + smoothing / 10
    expected = -(labels * logits.log_softmax(1)).sum(1).mean()
    term = trainer.distiller(batch, trainer.teacher.get_outputs(batch), torch.tensor(0.0))["task"]
    torch.testing.assert_close(term, expected)


def test_ema_student_is_the_moving_average_of_weights_and_statistics() -> None:
    trainer = make_trainer(recipe(ema_decay=0.5, epochs=1))
    nets = []
    train_step = trainer.train_step

    def train_and_copy(*args: Any) -> Any:
        terms_and_seconds = train_step(*args)
        nets.append(copy.deepcopy(trainer.distiller.student.state_dict()))
        return terms_and_seconds

    trainer.train_step = train_and_copy  # type: ignore[method-assign]
    expected = copy.deepcopy(trainer.ema_student.state_dict())
    next(trainer.run())
    for count, net in enumerate(nets):
        decay = min(0.5, count / (9 + count))
        expected = {k: decay * expected[k] + (1 - decay) * v for k, v in net.items()}
    for name, value in trainer.ema_student.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def train_shared_epoch(settings: Recipe) -> dict[str, Any]:
    trainer = make_trainer(settings)
    row = comparable_metrics(next(trainer.run()))
    weights = torch.cat([p.detach().flatten() for p in trainer.distiller.parameters()])
    whole = trainer.measure_test_metrics()["accuracy"]
    all_weights = (
        [torch.empty_like(weights) for _ in range(trainer.world)] if trainer.world > 1 else [weights]
    )
    if trainer.world > 1:
        dist.all_gather(all_weights, weights)
    return {"row": row, "test": whole, "apart": max(float((w - weights).abs().max()) for w in all_weights)}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_ranks_share_the_batches_and_agree(precision: str) -> None:
    ranks = gloo.run(train_shared_epoch, recipe(epochs=1, precision=precision))
    assert ranks[0]["row"] == ranks[1]["row"] and ranks[0]["test"] == ranks[1]["test"]
    assert ranks[0]["apart"] == 0
    alone = train_shared_epoch(recipe(epochs=1, precision=precision))
    # batch norm sees half batches, so the numbers are near, not equal
    assert ranks[0]["row"]["terms"]["task"] == pytest.approx(alone["row"]["terms"]["task"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("standard", [False, True])
def test_kd_beside_another_method_is_kd(standard: bool) -> None:
    beside = make_trainer(recipe(plus_kd={"weight": 2.0, "standardize": standard})).distiller
    alone = make_trainer(recipe(method={"name": "kd", "standardize": standard})).distiller
    trainer = make_trainer(recipe())
    batch = next(trainer.get_batches(1))
    alone.student.load_state_dict(beside.student.state_dict())
    teacher_outputs = trainer.teacher.get_outputs(batch)
    assert beside(batch, teacher_outputs, 0.0)["plus_kd"].item() == pytest.approx(
        alone(batch, teacher_outputs, 0.0)["kd"].item()
    )
    assert recipe(plus_kd={"weight": 2.0}).loss_weights()["plus_kd"] == 2.0


def test_a_batch_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size = 512 is more than the 128 training images"):
        make_trainer(recipe(optimizer={"batch_size": 512}))


def test_every_method_is_known_to_recipes() -> None:
    for name in methods.names():
        students = methods.get_class(name).students
        copies = 2 if students == "peers" else 1
        each = [{"net": "resnet14", "weights": f"{i}.pth"} for i in range(2)] if students == "members" else []
        teachers = {"teacher": None, "teachers": each} if each else {}
        settings = recipe(method={"name": name}, student={"net": "resnet8", "copies": copies}, **teachers)
        assert settings.method == methods.get_config_class(name)()


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_norms_count_their_batches(accumulate: int) -> None:
    trainer = make_trainer(recipe(epochs=1, optimizer={"batch_size": 32, "accumulate": accumulate}))
    list(trainer.run())
    counts = {int(v) for k, v in trainer.student.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counts == {trainer.steps_per_epoch * accumulate}


@pytest.mark.slow
def test_nets_of_another_library_are_trained() -> None:
    """A ViT, which has no batch norm, and a MobileNet."""
    vit = {"net": "timm/vit_tiny_patch16_224", "options": {"size": 32, "patch_size": 8, "depth": 1}}
    mobile_net = {"net": "timm/mobilenetv3_small_050", "options": {"size": 32}}
    for student in (vit, mobile_net):
        settings = recipe(student=student, method={"name": "dkd"}, epochs=1, precision="float32")
        (row,) = make_trainer(settings).run()
        assert math.isfinite(row["terms"]["task"]) and row["accuracy"] is not None
