"""Gaussian-process regression against scikit-learn's, finite differences and sampling."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from raykd.maths.gaussian_process import (
    Array,
    GaussianProcess,
    Prediction,
    fit_log_params,
    log_expected_improvement,
    negative_log_posterior,
    prior_log_params,
)


@pytest.fixture
def data() -> tuple[Array, Array]:
    """Thirty noisy values of a function of two of three columns."""
    rng = np.random.default_rng(0)
    x = rng.random((30, 3))
    return x, 50 + 10 * np.sin(4 * x[:, 0]) + 5 * x[:, 1] ** 2 + 0.3 * rng.normal(size=30)


def test_the_posterior_is_that_of_scikit_learn(data: tuple[Array, Array]) -> None:
    (x, y), lengths, noise = data, np.array([0.4, 1.0, 3.0]), 0.05
    new = np.random.default_rng(1).random((20, 3))
    kernel = Matern(lengths, nu=2.5) + WhiteKernel(noise)
    peer = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True).fit(x, y)
    means, deviations = peer.predict(new, return_std=True)
    mean, variance = GaussianProcess(x, y, np.log([*lengths, noise])).predict(new)
    assert mean == pytest.approx(means, rel=1e-9)
    assert variance == pytest.approx(deviations**2 - noise * y.var(), rel=1e-6)  # theirs is of observations


def test_the_gradient_of_the_posterior_is_that_of_finite_differences(data: tuple[Array, Array]) -> None:
    x, y = data[0], (data[1] - data[1].mean()) / data[1].std()
    log_params = np.array([-0.3, 0.5, 1.2, -2.0])
    _, gradient = negative_log_posterior(log_params, x, y)
    numeric = approx_fprime(log_params, lambda p: negative_log_posterior(p, x, y)[0], 1e-6)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_a_fit_finds_which_columns_matter_and_how_large_the_noise_is(data: tuple[Array, Array]) -> None:
    log_params = fit_log_params(*data)
    assert log_params[0] < log_params[1] < log_params[2]
    assert 0.3 * 0.3 < np.exp(0.5 * log_params[3]) * data[1].std() < 0.3 * 3
    worse = prior_log_params(3)
    x, y = data[0], (data[1] - data[1].mean()) / data[1].std()
    assert negative_log_posterior(log_params, x, y)[0] < negative_log_posterior(worse, x, y)[0]


def test_equal_observations_are_expected_elsewhere(data: tuple[Array, Array]) -> None:
    process = GaussianProcess(data[0], np.full(30, 7.0), fit_log_params(data[0], np.full(30, 7.0)))
    assert process.predict(data[0]).mean == pytest.approx(np.full(30, 7.0))


def test_believed_means_leave_the_mean_and_lessen_the_variance(data: tuple[Array, Array]) -> None:
    x, y = data
    process, new = GaussianProcess(x, y - y.mean(), prior_log_params(3)), np.full((1, 3), 1.0)
    before, after = process.predict(new), process.believe(new).predict(new)
    assert after.mean == pytest.approx(before.mean, abs=0.1)
    assert after.variance < 0.5 * before.variance


def test_the_expected_improvement_is_that_of_sampling_and_smooth_far_below() -> None:
    prediction = Prediction(np.array([0.0, 1.0, -2.0, -0.9]), np.array([1.0, 0.25, 1.0, 0.5]))
    samples = np.random.default_rng(0).normal(size=(400_000, 1))
    improvements = np.maximum(prediction.mean + np.sqrt(prediction.variance) * samples - 0.5, 0).mean(axis=0)
    assert np.exp(log_expected_improvement(prediction, 0.5)) == pytest.approx(improvements, rel=0.03)
    means = np.linspace(-3000, 3, 40_000)
    gains = log_expected_improvement(Prediction(means, np.ones_like(means)), 0.0)
    assert np.isfinite(gains).all() and (np.diff(gains) > 0).all()
