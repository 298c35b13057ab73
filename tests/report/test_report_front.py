"""The page of a search for several things at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from support.fake_report import made

from raykd.report import write
from raykd.report.figures.pareto import front, points
from raykd.report.rows.types import RunData


def several() -> RunData:
    """A made-up run whose trials also know their pace and size."""
    run, rng = made(60), np.random.default_rng(1)
    trials = [
        replace(t, seconds_per_epoch=float(rng.uniform(2, 9)), parameters=int(rng.integers(1, 6)) * 10_000)
        for t in run.trials
    ]
    return replace(run, trials=trials, objectives=("accuracy", "seconds_per_epoch", "parameters"))


def test_the_front_is_optunas() -> None:
    found = points(several())
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    for point in found:
        values = [point.accuracy, *point.costs]
        study.add_trial(
            create_trial(state=TrialState.COMPLETE, values=values, user_attrs={"n": point.number})
        )
    expected = {trial.user_attrs["n"] for trial in study.best_trials}
    assert {point.number for point in front(found)} == expected and 0 < len(expected) < len(found)


@pytest.mark.slow
def test_the_page_shows_it_where_there_are_several_objectives(tmp_path: Path) -> None:
    write.write_page(several(), tmp_path / "several")
    write.write_page(made(30), tmp_path / "one")
    assert (tmp_path / "several/figures/front.png").exists()
    assert not (tmp_path / "one/figures/front.png").exists()
    assert "What accuracy costs" in (tmp_path / "several/index.html").read_text()
