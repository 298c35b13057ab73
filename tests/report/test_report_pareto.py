"""The page of a search for several things at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from support.fake_report import make_run

from raykd.report import write
from raykd.report.figures.pareto import objective_points, pareto_front
from raykd.report.rows.types import RunData


def make_three_objective_run() -> RunData:
    """A made-up run whose trials also know their pace and size."""
    run, rng = make_run(60), np.random.default_rng(1)
    trials = [
        replace(t, seconds_per_epoch=float(rng.uniform(2, 9)), parameters=int(rng.integers(1, 6)) * 10_000)
        for t in run.trials
    ]
    return replace(run, trials=trials, objectives=("accuracy", "seconds_per_epoch", "parameters"))


def test_the_front_is_optunas() -> None:
    points = objective_points(make_three_objective_run())
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    for point in points:
        values = [point.accuracy, *point.costs]
        study.add_trial(
            create_trial(state=TrialState.COMPLETE, values=values, user_attrs={"n": point.number})
        )
    expected = {trial.user_attrs["n"] for trial in study.best_trials}
    assert {point.number for point in pareto_front(points)} == expected and 0 < len(expected) < len(points)


@pytest.mark.slow
def test_the_page_shows_it_where_there_are_several_objectives(tmp_path: Path) -> None:
    """Where there is one, the page has the figures of test_report.py alone."""
    write.write_page(make_three_objective_run(), tmp_path)
    assert (tmp_path / "figures/pareto.png").exists()
    assert "What accuracy costs" in (tmp_path / "index.html").read_text()
