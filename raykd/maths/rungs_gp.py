"""A Gaussian process over points and the rungs of halving: what ends will be, from all that is known.

One process for all rungs (intrinsic coregionalization: Bonilla et al., 2007): the covariance of rung k at x
with rung l at x' is s_k s_l r_kl matern(x, x'), where r_kl is the product of the correlations of the
neighbouring rungs between. Each rung has an unknown mean of its own, for only the better trials reach the
late ones. So stopped trials inform the model of the end as far as they came, and the length scales are those
of all rungs. Accuracies are squashed at their low end first, that bad runs do not bend the model:
-s log(1 + (best - y) / s), s = the 90th percentile less the median.
"""

from collections.abc import Sequence
from copy import copy
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.special import expit

from raykd.maths.gaussian_process import (
    LENGTH_PRIOR,
    NOISE_PRIOR,
    Array,
    Prediction,
    invert,
    matern,
    minimize_posterior,
    standardize,
)

MIN_TRIALS = 3  # that reached a rung, for the rung to be in the model
MEAN_VARIANCE = 4.0  # of a rung's mean, about the mean of the trials that reached it
# normal priors (mean and standard deviation): of a scale's logarithm, of a correlation's log odds
SCALE_PRIOR, ODDS_PRIOR = (0.0, 0.7), (2.0, 1.0)


class RungsGP:
    """The model of trials' values by rung.

    Args:
        x: Inputs of the trials [n, d].
        values: Accuracies [n, k] of the trials at the rungs, the end the last; nan where not reached. A trial
            that reached a rung reached all before it, and at least MIN_TRIALS reached the first.
        params: Of the model [d + 2 k]: logarithms of the d length scales and of the noise's variance, of the
            first rung's scale, then of each rung the logarithm of its scale, and the log odds of its
            correlation with the one before. Of rungs beyond them, the priors'; those of rungs that the model
            lacks (trials that reached one diverged since) are left aside.
        fit: Whether to fit them, from these.
    """

    def __init__(self, x: Array, values: Array, params: Sequence[float] = (), fit: bool = False) -> None:
        reached = np.isfinite(values)
        self.num_rungs = int((reached.sum(axis=0) >= MIN_TRIALS).sum())
        self._x, self._has_end = x, reached[:, self.num_rungs - 1]
        trials, self._rungs = np.nonzero(reached[:, : self.num_rungs])
        self._inputs, self._y = x[trials], np.empty(len(trials))
        for rung in range(self.num_rungs):
            squashed = squash(values[reached[:, rung], rung])
            self._offset, self._scale = standardize(squashed)
            self._y[self._rungs == rung] = (squashed - self._offset) / self._scale
        means, deviations = _list_priors(x.shape[1], self.num_rungs)
        self.params = np.append(params, means[len(params) :])[: len(means)]
        if fit:
            known = (self._inputs, self._rungs, self._y, means, deviations)
            self.params = minimize_posterior(_negative_log_posterior, self.params, known)
        self._lengths, self._noise, self._between = _unpack(self.params, x.shape[1])

    @cached_property
    def _solution(self) -> tuple[Array, Array]:
        """The covariance's Cholesky factor, and its inverse times the observations."""
        covariance = self._covary(self._inputs, self._rungs)
        noise = self._noise * np.diag(self._between)[self._rungs]
        covariance[np.diag_indices_from(covariance)] += noise
        factor = cholesky(covariance, lower=True, check_finite=False)
        return factor, cho_solve((factor, True), self._y, check_finite=False)

    def _covary(self, x: Array, rungs: NDArray[np.int64]) -> Array:
        """The covariance [n, m] of the observations with the process at inputs [m, d] and their rungs."""
        kernel, _ = matern(self._inputs, x, self._lengths)
        same = self._rungs[:, None] == rungs
        covariance: Array = kernel * self._between[self._rungs[:, None], rungs] + MEAN_VARIANCE * same
        return covariance

    def predict_ends(self, x: Array) -> Prediction:
        """Returns mean and variance [m] of the squashed value at the model's last rung, at inputs [m, d]."""
        factor, alpha = self._solution
        cross = self._covary(x, np.full(len(x), self.num_rungs - 1))
        explained = solve_triangular(factor, cross, lower=True, check_finite=False)
        prior = self._between[-1, -1] + MEAN_VARIANCE
        variance = np.maximum(prior - np.einsum("nm,nm->m", explained, explained), 1e-12)
        return Prediction(self._offset + self._scale * (alpha @ cross), self._scale**2 * variance)

    def predict_own_ends(self) -> Prediction:
        """Returns the same [n] of the model's own trials."""
        return self.predict_ends(self._x)

    def predict_best(self) -> float:
        """Returns the highest mean of the end at trials that reached the last rung: without noise."""
        return float(self.predict_ends(self._x[self._has_end]).mean.max())

    def believe(self, x: Array) -> "RungsGP":
        """Returns the model as if trials at inputs [m, d] had at the end what it predicts."""
        if not len(x):
            return self
        believing = copy(self)
        believing.__dict__.pop("_solution", None)
        means = (self.predict_ends(x).mean - self._offset) / self._scale
        believing._inputs, believing._y = np.concatenate([self._inputs, x]), np.append(self._y, means)
        believing._rungs = np.append(self._rungs, np.full(len(x), self.num_rungs - 1))
        return believing


def squash(values: Array) -> Array:
    """Returns values with their low end drawn together, the best at 0; near it, in the values' own units."""
    best, scale = values.max(), float(np.percentile(values, 90) - np.median(values))
    scale = max(scale, 1e-3 * float(np.ptp(values)), 1e-9)
    squashed: Array = -scale * np.log1p((best - values) / scale)
    return squashed


def _list_priors(d: int, num_rungs: int) -> tuple[Array, Array]:
    """Means and deviations of the parameters."""
    priors = [LENGTH_PRIOR] * d + [NOISE_PRIOR, SCALE_PRIOR] + [SCALE_PRIOR, ODDS_PRIOR] * (num_rungs - 1)
    means, deviations = np.array(priors).T
    return means, deviations


def _unpack(params: Array, d: int) -> tuple[Array, float, Array]:
    """Length scales, the noise's variance, and the rungs' covariances [k, k]."""
    scales, correlations = np.exp(params[[d + 1, *range(d + 2, len(params), 2)]]), expit(params[d + 3 :: 2])
    logs = np.concatenate([[0.0], np.log(correlations).cumsum()])
    between: Array = np.exp(-np.abs(logs[:, None] - logs)) * scales[:, None] * scales
    return np.exp(params[:d]), float(np.exp(params[d])), between


def _negative_log_posterior(
    params: Array, x: Array, rungs: NDArray[np.int64], y: Array, means: Array, deviations: Array
) -> tuple[float, Array]:
    """-log p(y, parameters) but for a constant, and its gradient."""
    d = x.shape[1]
    lengths, noise, between = _unpack(params, d)
    kernel, slope = matern(x, x, lengths)
    pairs = between[rungs[:, None], rungs]
    signal, diagonal = kernel * pairs, noise * np.diag(pairs)
    covariance = signal + MEAN_VARIANCE * (rungs[:, None] == rungs) + np.diag(diagonal)
    factor = cho_factor(covariance, lower=True, check_finite=False)
    alpha = cho_solve(factor, y, check_finite=False)
    z = (params - means) / deviations
    value = 0.5 * y @ alpha + np.log(np.diag(factor[0])).sum() + 0.5 * z @ z
    weights = invert(factor[0]) - np.outer(alpha, alpha)
    sloped = weights * slope * pairs  # dk / d log l_i = slope (x_i - x_i')^2 / l_i^2
    squares = sloped.sum(axis=1) @ x**2 - np.einsum("ni,nm,mi->i", x, sloped, x, optimize=True)
    at_rung = np.eye(len(between))[rungs]
    by_rungs = at_rung.T @ (weights * signal) @ at_rung  # [k, k]
    by_noise = at_rung.T @ (np.diag(weights) * diagonal)
    by_scale = by_rungs.sum(axis=1) + by_noise
    by_odds = [
        (1 - expit(odds)) * by_rungs[: rung + 1, rung + 1 :].sum()
        for rung, odds in enumerate(params[d + 3 :: 2])
    ]
    rest = np.column_stack([by_scale[1:], by_odds]).ravel()
    gradient = np.concatenate([squares / lengths**2, [0.5 * by_noise.sum()], by_scale[:1], rest])
    return float(value), gradient + z / deviations
