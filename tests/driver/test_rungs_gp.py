"""The sampler and the pruner by a Gaussian process over the rungs, in Optuna studies of real storage."""

import time
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from raykd.driver.distributions import suggest, to_distribution
from raykd.driver.rungs_gp import RungsGPPruner, RungsGPSampler, read_expected_gains
from raykd.driver.rungs_history import DIVERGED
from raykd.spec import Dimension, Range, Scalar
from raykd.study.space import draw

RUNGS = [1, 3, 9]
SPACE: dict[str, Dimension] = {"lr": Range(0.01, 1, log=True), "momentum": Range(0, 1)}
Params = dict[str, Scalar]


def accuracy(params: Params, epoch: int) -> float:
    """Best at lr 0.1 and momentum 0.7."""
    lr, momentum = float(params["lr"]), float(params["momentum"])
    end = 80 - 8 * np.log10(lr / 0.1) ** 2 - 30 * (momentum - 0.7) ** 2
    return float(end * (1 - 0.6**epoch))


def run_trial(study: optuna.Study, seed: int, share: float = 0.0, breaks_above: float = 1.0) -> Params:
    """One trial, which diverges where lr is above a value; returns its point."""
    study.sampler = RungsGPSampler(SPACE, RUNGS, 4, share, seed * 1000 + len(study.trials))
    trial = study.ask()
    params = draw(SPACE, lambda path, dimension: suggest(trial, path, dimension))
    if float(params["lr"]) > breaks_above:
        trial.set_user_attr(DIVERGED, True)
        study.tell(trial, state=TrialState.FAIL)
        return params
    for epoch in range(1, 10):
        trial.report(accuracy(params, epoch), epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return params
    study.tell(trial, accuracy(params, 9))
    return params


def create_study(**settings: Any) -> optuna.Study:
    pruner = RungsGPPruner(SPACE, RUNGS, eta=3, kappa=0.5)
    return optuna.create_study(direction="maximize", pruner=pruner, **settings)


def test_it_finds_the_best_point_and_stops_what_will_not_be_good() -> None:
    study = create_study()
    for _ in range(25):
        run_trial(study, seed=0)
    assert study.best_value > accuracy({"lr": 0.1, "momentum": 0.7}, 9) - 0.5
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.PRUNED) > 8 and states.count(TrialState.COMPLETE) > 4
    gains = read_expected_gains(study)
    assert len(gains) == 3 and max(gains) < 0.5


def test_proposals_follow_from_seed_and_storage_alone() -> None:
    storage = optuna.storages.InMemoryStorage()
    whole, pieces = create_study(), create_study(storage=storage, study_name="pieces")
    for _ in range(14):
        assert run_trial(whole, seed=3) == run_trial(pieces, seed=3)
        pieces = optuna.load_study(study_name="pieces", storage=storage, pruner=pieces.pruner)
    assert run_trial(whole, seed=3) != run_trial(pieces, seed=4)


def test_points_far_among_those_that_diverged_are_avoided() -> None:
    study = create_study()
    late = [run_trial(study, seed=1, breaks_above=0.12) for _ in range(30)][15:]
    assert sum(float(params["lr"]) > 0.3 for params in late) <= 3  # the best point is near those that diverge
    assert study.best_value > 78.5


def test_trials_under_way_are_not_proposed_again() -> None:
    study = create_study()
    for _ in range(10):
        run_trial(study, seed=2)
    points = []
    for number in range(4):
        study.sampler = RungsGPSampler(SPACE, RUNGS, 4, 0.0, 100 + number)
        trial = study.ask()
        draw(SPACE, lambda path, dimension, trial=trial: suggest(trial, path, dimension))
        points.append([np.log10(trial.params["lr"]) / 2, trial.params["momentum"]])
    distances = np.linalg.norm(np.array(points)[:, None] - np.array(points), axis=2)[np.triu_indices(4, 1)]
    assert distances.min() > 1e-3


@pytest.mark.parametrize(("value", "near"), [(70.0, True), (10.0, False)])
def test_first_points_are_near_the_papers_as_long_as_it_is_not_among_the_worse(
    value: float, near: bool
) -> None:
    study = create_study()
    paper = {"lr": 0.9, "momentum": 0.1}
    distributions = {path: to_distribution(dimension) for path, dimension in SPACE.items()}
    for params, role, reached in [(paper, "paper", value), ({"lr": 0.02, "momentum": 0.9}, "searched", 40.0)]:
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED, params=params, distributions=distributions,
                intermediate_values={1: reached}, user_attrs={"role": role},
            )
        )  # fmt: skip
    waiting, points = create_trial(state=TrialState.WAITING), []
    waiting.number = 2
    for seed in range(40):
        study.sampler = RungsGPSampler(SPACE, RUNGS, 20, 1.0, seed)
        points.append(study.sampler.sample_relative(study, waiting, {}))
    close = [float(p["lr"]) > 0.2 and float(p["momentum"]) < 0.6 for p in points]
    assert (sum(close) > 20) == near


def test_before_the_model_has_ends_trials_are_judged_by_their_values() -> None:
    study = create_study()
    kept = []
    for number, reached in enumerate([50.0, 40.0, 60.0, 55.0, 70.0]):
        trial = study.ask()
        draw(SPACE, lambda path, dimension, trial=trial: suggest(trial, path, dimension))
        trial.report(reached, 1)
        kept.append(not trial.should_prune())
        trial.report(reached, 2)
        assert not trial.should_prune(), number  # no rung
    assert kept == [True, False, True, False, True]


def test_a_proposal_at_300_trials_takes_less_than_half_a_second() -> None:
    space: dict[str, Dimension] = {f"x{k}": Range(0, 1) for k in range(8)}
    study, rng = optuna.create_study(direction="maximize"), np.random.default_rng(0)
    distributions = {path: to_distribution(dimension) for path, dimension in space.items()}
    for _ in range(300):
        params = {path: float(rng.random()) for path in space}
        rungs = [r for r in RUNGS if r == 1 or rng.random() < 0.4]
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED, params=params, distributions=distributions,
                intermediate_values={r: 50 + 10 * params["x0"] + rng.normal() for r in rungs},
            )
        )  # fmt: skip
    waiting = create_trial(state=TrialState.WAITING)
    waiting.number = 300
    before = time.process_time()
    RungsGPSampler(space, RUNGS, 4, 0.0, 0).sample_relative(study, waiting, {})
    assert time.process_time() - before < 5  # 0.5 on a quiet core: studies/RECORDS.md
