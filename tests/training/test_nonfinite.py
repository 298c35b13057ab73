"""A loss that is not finite, as a user meets it."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.small_trainer import recipe


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
