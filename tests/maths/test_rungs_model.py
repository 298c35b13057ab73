"""The Gaussian process over rungs, on curves whose ends are known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from raykd.maths.gaussian_process import Array
from raykd.maths.rungs_gp import RungsGP, squash


def make_curves(x: Array) -> Array:
    """Values at three rungs; the end turns the order of the first column's upper half."""
    first = 40 + 20 * x[:, 0]
    second = first + 5 * x[:, 1]
    return np.stack([first, second, second + 10 - 30 * np.maximum(x[:, 0] - 0.5, 0)], axis=1)


@pytest.fixture
def trials() -> tuple[Array, Array]:
    """Sixty trials, of which half reached the second rung and a quarter the end."""
    x = np.random.default_rng(0).random((60, 2))
    values = make_curves(x)
    values[30:, 1] = values[15:, 2] = np.nan
    return x, values


def test_squashed_values_keep_their_order_and_near_the_best_their_units() -> None:
    values = np.array([0.1, 30.0, 60.0, 69.0, 69.5, 70.0])
    squashed = squash(values)
    assert (np.diff(squashed) > 0).all() and squashed[-1] == 0
    assert squashed[-1] - squashed[-2] == pytest.approx(0.5, rel=0.1)
    assert squashed[1] - squashed[0] < 10
    assert squash(np.full(4, 5.0)) == pytest.approx(np.zeros(4))


def test_ends_of_new_points_are_predicted_from_few_complete_trials(trials: tuple[Array, Array]) -> None:
    x, values = trials
    new = np.random.default_rng(1).random((200, 2))
    mean, variance = RungsGP(x, values, fit=True).predict_ends(new)
    ends = make_curves(new)[:, 2]
    assert spearmanr(mean, ends).statistic > 0.9 > spearmanr(new[:, 0], ends).statistic
    assert (variance > 0).all()


def test_a_trial_is_judged_from_the_last_rung_that_it_reached(trials: tuple[Array, Array]) -> None:
    x, values = trials
    model = RungsGP(x, values, fit=True)
    mean, variance = model.predict_own_ends()
    assert mean[:15] == pytest.approx(squash(values[:15, 2])) and not variance[:15].any()
    assert variance[15:30].max() < variance[30:].max()
    assert spearmanr(mean, make_curves(x)[:, 2]).statistic > 0.9


def test_a_rung_that_few_reached_is_left_out_and_parameters_can_be_given(trials: tuple[Array, Array]) -> None:
    x, values = trials
    values[2:, 2] = np.nan
    fitted = RungsGP(x, values, fit=True)
    assert fitted.num_rungs == 2 and len(fitted.log_params) == 2
    again = RungsGP(x, values, fitted.log_params)
    assert again.predict_ends(x).mean == pytest.approx(fitted.predict_ends(x).mean)
    assert again.believe(x[:0]) is again
    corner = np.array([[1.0, 0.0]])
    assert again.believe(corner).predict_ends(corner).variance < fitted.predict_ends(corner).variance
