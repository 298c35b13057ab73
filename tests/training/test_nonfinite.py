"""A loss that is not finite, as a user meets it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from support.small_trainer import CPU, recipe
from torch import nn

from raykd.training.nonfinite import NonFiniteGuard


@pytest.mark.parametrize("words", [(), pytest.param(("--workers", "1"), marks=pytest.mark.slow)])
def test_train_says_in_one_line_that_the_loss_is_not_finite(
    verb: Any, tmp_path: Path, words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    if words:
        request.getfixturevalue("ray_session")
    with (tmp_path / "recipe.yaml").open("w") as file:
        YAML().dump(recipe(method={"name": "ce"}, teacher=None).to_dict(), file)
    done = verb("train", "recipe.yaml", "--set", "optimizer/lr=1e30", *words)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("raykd: loss term not finite: task = ") and "lower learning rate" in line
    assert "Traceback" not in done.stderr and (words or len(done.stderr.splitlines()) == 1)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_fused_step_rests_once_a_loss_was_not_finite(name: str) -> None:
    """By `found_inf`, which torch keeps for its GradScaler: fails when its optimisers read it no longer."""
    module, part = nn.Linear(2, 1), nn.Identity()
    optimizer = recipe(optimizer={"name": name, "lr": 0.1}).optimizer.make(module, {"own": part})
    guard = NonFiniteGuard(optimizer, CPU, steps_per_epoch=9)

    def moves(loss: float) -> bool:
        before = module.weight.clone()
        module(torch.ones(1, 2)).sum().backward()
        guard.mark(torch.tensor(loss))
        optimizer.step()
        return not torch.equal(module.weight, before)

    assert [moves(loss) for loss in (1.0, math.inf, 1.0)] == [True, False, False]
