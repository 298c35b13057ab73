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


def test_a_trials_own_rungs_say_most_of_its_end(trials: tuple[Array, Array]) -> None:
    x, values = trials
    mean, variance = RungsGP(x, values, fit=True).predict_own_ends()
    assert mean[:15] == pytest.approx(squash(values[:15, 2]), abs=0.5)
    assert variance[:15].max() < variance[15:30].mean() < variance[30:].mean()
    assert spearmanr(mean, make_curves(x)[:, 2]).statistic > 0.95


def test_an_early_rung_ranks_points_that_the_few_ends_cannot() -> None:
    """The survivors' higher mean at the end does not count against those that were stopped."""
    x, rng = np.random.default_rng(2).random((60, 4)), np.random.default_rng(3)
    ends = 40 + 10 * np.sin(3 * x).sum(axis=1)
    values = np.stack([0.3 * ends, 0.7 * ends, ends], axis=1) + 0.2 * rng.normal(size=(60, 3))
    values[ends < np.quantile(ends, 0.6), 1:] = values[ends < np.quantile(ends, 0.9), 2] = np.nan
    new = rng.random((300, 4))
    mean = RungsGP(x, values, fit=True).predict_ends(new).mean
    assert spearmanr(mean, np.sin(3 * new).sum(axis=1)).statistic > 0.9


def test_the_fit_is_where_the_posterior_is_highest(trials: tuple[Array, Array]) -> None:
    x, values = trials
    fitted = RungsGP(x, values, fit=True)
    again = RungsGP(x, values, fitted.params, fit=True)
    from_elsewhere = RungsGP(x, values, fitted.params + 0.3, fit=True)
    assert again.params == pytest.approx(fitted.params, abs=0.1)
    assert from_elsewhere.params == pytest.approx(fitted.params, abs=0.3)


def test_a_rung_that_few_reached_is_left_out_and_parameters_can_be_given(trials: tuple[Array, Array]) -> None:
    x, values = trials
    values[2:, 2] = np.nan
    fitted = RungsGP(x, values, fit=True)
    assert fitted.num_rungs == 2 and len(fitted.params) == 2 + 2 * 2
    again = RungsGP(x, values, fitted.params)
    assert again.predict_ends(x).mean == pytest.approx(fitted.predict_ends(x).mean)
    assert again.believe(x[:0]) is again
    corner = np.array([[1.0, 0.0]])
    assert again.believe(corner).predict_ends(corner).variance < fitted.predict_ends(corner).variance


def test_a_rung_that_no_trial_has_any_more_is_left_aside(trials: tuple[Array, Array]) -> None:
    """As when those that reached it diverged later."""
    x, values = trials
    params = RungsGP(x, values, fit=True).params
    values[:, 2] = np.nan
    model = RungsGP(x, values, params, fit=True)
    assert model.num_rungs == 2 and len(model.params) == len(params) - 2
    assert RungsGP(x, values, model.params).predict_own_ends().mean == pytest.approx(
        model.predict_own_ends().mean
    )
