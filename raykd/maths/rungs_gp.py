"""A Gaussian process over the rungs of halving: what a trial's end will be, from where it stands.

Autoregressive over the rungs (Kennedy and O'Hagan, 2000; recursive as in Le Gratiet and Garnier, 2014):
y_k(x) = rho_k y_{k-1}(x) + delta_k(x), each delta_k a GaussianProcess on the trials that reached rung k. So
stopped trials inform the model as far as they came. Accuracies are squashed at their low end first, that bad
runs do not bend the model: -s log(1 + (best - y) / s), s = the 90th percentile less the median.
"""

from collections.abc import Sequence
from copy import copy

import numpy as np

from raykd.maths.gaussian_process import (
    Array,
    GaussianProcess,
    Prediction,
    fit_log_params,
    prior_log_params,
)

MIN_TRIALS = 3  # that reached a rung, for the rung to be in the model
RIDGE = 3.0  # trials that the prior of rho counts for


class RungsGP:
    """The model of trials' values by rung.

    Args:
        x: Inputs of the trials [n, d].
        values: Accuracies [n, k] of the trials at the rungs, the end the last; nan where not reached. A trial
            that reached a rung reached all before it, and at least MIN_TRIALS reached the first.
        log_params: Of the rungs' Gaussian processes [k][d + 1]; of rungs beyond them, the priors'.
        fit: Whether to fit them, from these.
    """

    def __init__(self, x: Array, values: Array, log_params: Sequence[Array] = (), fit: bool = False) -> None:
        self._x = x
        reached = np.isfinite(values)
        self.num_rungs = int((reached.sum(axis=0) >= MIN_TRIALS).sum())
        self.squashed = np.full((len(values), self.num_rungs), np.nan)
        self.log_params: list[Array] = []
        self._rhos: list[float] = []
        self._processes: list[GaussianProcess] = []
        for rung in range(self.num_rungs):
            known = reached[:, rung]
            targets = self.squashed[known, rung] = squash(values[known, rung])
            before = self.squashed[known, rung - 1] if rung else np.zeros(len(targets))
            rho = _find_rho(before, targets)
            targets = targets - rho * before
            params = log_params[rung] if rung < len(log_params) else prior_log_params(x.shape[1])
            if fit:
                params = fit_log_params(x[known], targets, params)
            self._rhos.append(rho)
            self._processes.append(GaussianProcess(x[known], targets, params))
            self.log_params.append(params)

    def predict_ends(self, x: Array) -> Prediction:
        """Returns mean and variance [m] of the squashed value at the model's last rung, at inputs [m, d]."""
        return self._climb(x, np.full((len(x), self.num_rungs), np.nan), noisy=False)

    def predict_own_ends(self, rung: int | None = None) -> Prediction:
        """Returns the same [n] of the model's own trials, from the last rung that each has reached.

        Args:
            rung: As if no trial had gone beyond this one.
        """
        squashed = self.squashed.copy()
        if rung is not None:
            squashed[:, rung + 1 :] = np.nan
        return self._climb(self._x, squashed, noisy=True)

    def predict_best(self) -> float:
        """Returns the highest mean of the end at trials that reached the last rung: without noise."""
        return float(self.predict_ends(self._x[np.isfinite(self.squashed[:, -1])]).mean.max())

    def _climb(self, x: Array, squashed: Array, noisy: bool) -> Prediction:
        mean, variance = np.zeros(len(x)), np.zeros(len(x))
        for rung, (rho, process) in enumerate(zip(self._rhos, self._processes, strict=True)):
            known = np.isfinite(squashed[:, rung])
            mean[known], variance[known] = squashed[known, rung], 0.0
            if not known.all():
                step = process.predict(x[~known])
                mean[~known] = rho * mean[~known] + step.mean
                variance[~known] = rho**2 * variance[~known] + step.variance + noisy * process.noise
        return Prediction(mean, variance)

    def believe(self, x: Array) -> "RungsGP":
        """Returns the model as if trials at inputs [m, d] had at the first rung what it predicts."""
        if not len(x):
            return self
        believing = copy(self)
        believing._processes = [self._processes[0].believe(x), *self._processes[1:]]
        return believing


def squash(values: Array) -> Array:
    """Returns values with their low end drawn together, the best at 0; near it, in the values' own units."""
    best, scale = values.max(), float(np.percentile(values, 90) - np.median(values))
    scale = max(scale, 1e-3 * float(np.ptp(values)), 1e-9)
    squashed: Array = -scale * np.log1p((best - values) / scale)
    return squashed


def _find_rho(before: Array, after: Array) -> float:
    """Ridge regression towards half the ratio of the deviations."""
    before, after = before - before.mean(), after - after.mean()
    variance = float(before.var())
    if variance < 1e-12:
        return 0.0
    prior = 0.5 * float(after.std()) / variance**0.5
    ridge = RIDGE * variance
    return float((before @ after + ridge * prior) / (before @ before + ridge))
