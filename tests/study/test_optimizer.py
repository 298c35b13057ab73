"""The optimiser and its schedules, against torch's own."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim import lr_scheduler as torch_schedules

from raykd.study.optimizer import CosineDecay, Optimizer, Schedule, StepDecay, WarmupStableDecay

STEPS, EPOCHS = 5, 12  # of an epoch; of the training
TOTAL = STEPS * EPOCHS


def list_torch_rates(make_schedule: Any, steps: int) -> list[float]:
    """The rates of an optimiser of rate 0.1 that torch's schedule moves."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule, rates = make_schedule(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def list_rates(schedule: Schedule, **settings: Any) -> list[float]:
    optimizer = Optimizer(lr=0.1, **settings)
    return [optimizer.compute_lr(schedule, step, STEPS, EPOCHS) for step in range(TOTAL)]


@pytest.mark.parametrize(
    ("schedule", "make_torch_schedule"),
    [
        (CosineDecay(), lambda o, n: torch_schedules.CosineAnnealingLR(o, n)),
        (
            StepDecay(milestones=(0.5, 0.75)),
            lambda o, n: torch_schedules.MultiStepLR(o, [n * 2 // 4, n * 3 // 4]),
        ),
        (
            WarmupStableDecay(decay=0.25),
            lambda o, n: torch_schedules.SequentialLR(
                o,
                [torch_schedules.ConstantLR(o, 1.0), torch_schedules.LinearLR(o, 1.0, 0.0, n // 4)],
                [n - n // 4],
            ),
        ),
    ],
)
def test_schedules_are_torchs_by_epoch_and_by_step(schedule: Schedule, make_torch_schedule: Any) -> None:
    by_step = list_torch_rates(lambda o: make_torch_schedule(o, TOTAL), TOTAL)
    assert list_rates(schedule, lr_updates="step") == pytest.approx(by_step)
    by_epoch = list_torch_rates(lambda o: make_torch_schedule(o, EPOCHS), EPOCHS)
    assert list_rates(schedule) == pytest.approx([rate for rate in by_epoch for _ in range(STEPS)])


def test_warmup_is_torchs_linear_rise_and_the_cosine_begins_after_it() -> None:
    warmup = TOTAL // 6

    def make_torch_schedule(optimizer: torch.optim.Optimizer) -> Any:
        rise = torch_schedules.LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1)
        cosine = torch_schedules.CosineAnnealingLR(optimizer, TOTAL - warmup)
        return torch_schedules.SequentialLR(optimizer, [rise, cosine], [warmup])

    rates = list_rates(CosineDecay(), warmup=1 / 6, lr_updates="step")
    assert rates == pytest.approx(list_torch_rates(make_torch_schedule, TOTAL))


def test_adamw_and_its_groups_are_torchs_plain_ones() -> None:
    torch.manual_seed(0)
    settings = Optimizer(name="adamw", lr=1e-2, weight_decay=0.1, beta2=0.95, decay_vectors=False)
    nets = [nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    matrices, vectors = ([p for p in nets[1].parameters() if (p.ndim > 1) == big] for big in (True, False))
    plain_groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(plain_groups, lr=1e-2, betas=(0.9, 0.95), foreach=False, fused=False)
    optimizers = settings.make(nets[0]), plain
    for _ in range(5):
        images = torch.randn(8, 4)
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            net(images).square().sum().backward()
            optimizer.step()
    for fused, expected in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(fused, expected)


def test_an_adamw_with_nesterov_is_refused() -> None:
    with pytest.raises(ValidationError, match="nesterov is of sgd"):
        Optimizer(name="adamw", nesterov=True)
