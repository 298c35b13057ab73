"""Gaussian-process regression with a length scale a column, and the expected improvement over a value.

The kernel is Matern 5/2 of variance 1 on standardized values (Rasmussen and Williams, 2006, ch. 2 and 4).
Length scales and noise are maximum a posteriori: a study's first trials are too few for maximum likelihood.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, lapack, solve_triangular
from scipy.optimize import minimize
from scipy.special import erfcx, log_ndtr

Array = NDArray[np.float64]

# log-normal priors (mean and standard deviation of the logarithm), for inputs in [0, 1]
LENGTH_PRIOR, NOISE_PRIOR = (0.7, 1.0), (float(np.log(0.02)), 1.5)
LOG_BOUNDS = (-6.0, 6.0)
ROOT5 = 5**0.5


class Prediction(NamedTuple):
    """Means and variances of the function, without noise."""

    mean: Array
    variance: Array


class GaussianProcess:
    """A Gaussian process given observations.

    Args:
        x: Inputs [n, d], about in [0, 1].
        y: Observations [n].
        log_params: Logarithms of the d length scales and, last, of the noise's variance relative to y's.
    """

    def __init__(self, x: Array, y: Array, log_params: Array) -> None:
        self._x, self._y, self._log_params = x, y, log_params
        self._lengths = np.exp(log_params[:-1])
        self._offset, self._scale = standardize(y)
        self.noise = self._scale**2 * float(np.exp(log_params[-1]))  # the variance of an observation

    @cached_property
    def _solution(self) -> tuple[Array, Array]:
        """The covariance's Cholesky factor, and its inverse times the standardized observations."""
        covariance, _ = matern(self._x, self._x, self._lengths)
        covariance[np.diag_indices_from(covariance)] += np.exp(self._log_params[-1])
        factor = cholesky(covariance, lower=True, check_finite=False)
        return factor, cho_solve((factor, True), (self._y - self._offset) / self._scale, check_finite=False)

    def predict(self, x: Array) -> Prediction:
        """Returns mean and variance [m] at inputs [m, d]."""
        factor, alpha = self._solution
        cross, _ = matern(self._x, x, self._lengths)
        explained = solve_triangular(factor, cross, lower=True, check_finite=False)
        variance = np.maximum(1 - np.einsum("nm,nm->m", explained, explained), 1e-12)
        return Prediction(self._offset + self._scale * (alpha @ cross), self._scale**2 * variance)

    def believe(self, x: Array) -> "GaussianProcess":
        """Returns the process as if its means had been observed at inputs [m, d]."""
        y = np.concatenate([self._y, self.predict(x).mean])
        return GaussianProcess(np.concatenate([self._x, x]), y, self._log_params)


def standardize(y: Array) -> tuple[float, float]:
    """Returns mean and standard deviation, of equal values 1."""
    scale = float(y.std())
    return float(y.mean()), scale if scale > 1e-9 else 1.0


def fit_log_params(x: Array, y: Array, start: Array | None = None) -> Array:
    """Returns the most probable parameters [d + 1] of a GaussianProcess, by L-BFGS from `start`."""
    offset, scale = standardize(y)
    first = prior_log_params(x.shape[1]) if start is None else start
    return minimize_posterior(negative_log_posterior, first, (x, (y - offset) / scale))


def minimize_posterior(
    function: Callable[..., tuple[float, Array]], start: Array, arguments: tuple[Any, ...]
) -> Array:
    """Returns the parameters that minimize a function of them and of `arguments`, given with its gradient."""
    result = minimize(
        function, start, args=arguments, jac=True, method="L-BFGS-B",
        bounds=[LOG_BOUNDS] * len(start), options={"maxiter": 50, "ftol": 1e-5},
    )  # fmt: skip
    fitted: Array = result.x
    return fitted


def prior_log_params(d: int) -> Array:
    """Returns the parameters [d + 1] that the priors alone make most probable."""
    return np.array([LENGTH_PRIOR[0]] * d + [NOISE_PRIOR[0]])


def negative_log_posterior(log_params: Array, x: Array, y: Array) -> tuple[float, Array]:
    """Returns -log p(y, parameters) but for a constant, and its gradient [d + 1].

    Args:
        log_params: As of GaussianProcess.
        x: Inputs [n, d].
        y: Standardized observations [n].
    """
    lengths, noise = np.exp(log_params[:-1]), np.exp(log_params[-1])
    covariance, slope = matern(x, x, lengths)
    covariance[np.diag_indices_from(covariance)] += noise
    factor = cho_factor(covariance, lower=True, check_finite=False)
    alpha = cho_solve(factor, y, check_finite=False)
    means = np.array([LENGTH_PRIOR[0]] * len(lengths) + [NOISE_PRIOR[0]])
    deviations = np.array([LENGTH_PRIOR[1]] * len(lengths) + [NOISE_PRIOR[1]])
    z = (log_params - means) / deviations
    value = 0.5 * y @ alpha + np.log(np.diag(factor[0])).sum() + 0.5 * z @ z
    weights = invert(factor[0]) - np.outer(alpha, alpha)
    sloped = weights * slope  # dk / d log l_i = slope (x_i - x_i')^2 / l_i^2
    pairs = sloped.sum(axis=1) @ x**2 - np.einsum("ni,nm,mi->i", x, sloped, x, optimize=True)
    gradient = np.append(pairs / lengths**2, 0.5 * noise * np.trace(weights)) + z / deviations
    return float(value), gradient


def invert(factor: Array) -> Array:
    """Returns the inverse of the matrix of which the lower triangle of `factor` is the Cholesky factor."""
    inverse, _ = lapack.dpotri(factor, lower=1)  # its lower half, in a third of the time of solving for it
    lower = np.tril(inverse, -1)
    result: Array = lower + lower.T + np.diag(np.diag(inverse))
    return result


def matern(a: Array, b: Array, lengths: Array) -> tuple[Array, Array]:
    """Returns the kernel [n, m], and its slope: by it, squared distances of columns enter the gradient."""
    a, b = a / lengths, b / lengths
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    distance = ROOT5 * np.sqrt(np.maximum(squares, 0.0))
    decay = np.exp(-distance)
    return (1 + distance + distance**2 / 3) * decay, 5 / 3 * (1 + distance) * decay


def log_expected_improvement(prediction: Prediction, best: float) -> Array:
    """Returns log E[max(f - best, 0)] of normal f, exact far below the best too (arXiv:2310.20708)."""
    deviation = np.sqrt(prediction.variance)
    z = (prediction.mean - best) / deviation
    density = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    near = np.maximum(z, -1.0)
    log_near = np.log(np.exp(-0.5 * near**2) / np.sqrt(2 * np.pi) + near * np.exp(log_ndtr(near)))
    far = np.minimum(z, -1.0)
    ratio = -far * erfcx(-far / 2**0.5) * (np.pi / 2) ** 0.5  # Mills' ratio times -z: below 1
    log_far = density + np.where(far > -1e3, np.log1p(-np.minimum(ratio, 1 - 1e-12)), -2 * np.log(-far))
    result: Array = np.log(deviation) + np.where(z > -1, log_near, log_far)
    return result
