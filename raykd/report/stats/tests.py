"""The few statistics that a report states: intervals of means, paired differences, rank correlations."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, isfinite, sqrt, tanh

import numpy as np
from scipy import stats

from raykd.maths import interval
from raykd.report.rows.types import EpochRow, RunData, get_accuracy

MIN_TRIALS = 5  # trials, for a rank correlation to be stated
MIN_STANDARD_ERROR = 1e-9  # points; differences that vary by less are all the same, and their t says nothing


@dataclass(frozen=True)
class MeanInterval:
    """A mean with half the width of its 95 % t interval; None with fewer than two values."""

    n: int
    mean: float
    half_width: float | None


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference a - b over common seeds; p of the paired t test, None where it says nothing."""

    n: int
    mean: float
    half_width: float | None
    p: float | None


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho with its 95 % interval (Fisher's z with the variance of Bonett and Wright, 2000)."""

    n: int
    rho: float
    low: float
    high: float


@dataclass(frozen=True)
class EpochRankCorrelation:
    """How well the accuracy at one epoch ranks the trials as the end does."""

    epoch: int
    ema: Correlation
    raw: Correlation | None
    ema_better_half: Correlation | None  # averaged weights, among the better half of the trials


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Returns the mean of values with its interval."""
    return MeanInterval(len(values), float(np.mean(values)), interval.half_width(values))


def paired_t_test(a: dict[int, float], b: dict[int, float]) -> PairedDifference | None:
    """Returns the difference of two recipes by seed; None without a common seed."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    differences = [a[s] - b[s] for s in seeds]
    mean = mean_interval(differences)
    standard_error = float(np.std(differences, ddof=1)) / sqrt(mean.n) if mean.n > 1 else 0.0
    p = (
        float(2 * stats.t.sf(abs(mean.mean) / standard_error, mean.n - 1))
        if standard_error > MIN_STANDARD_ERROR
        else None
    )
    return PairedDifference(mean.n, mean.mean, mean.half_width, p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns p values corrected for their number (Holm, 1979), in the order given."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    result: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for rank, (p, i) in enumerate(known):
        floor = max(floor, min(1.0, p * (len(known) - rank)))
        result[i] = floor
    return result


def spearman(a: Sequence[float], b: Sequence[float]) -> Correlation | None:
    """Returns Spearman's rho; None with fewer than MIN_TRIALS pairs, or where one side does not vary."""
    n = len(a)
    if n < MIN_TRIALS or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    rho = float(stats.spearmanr(a, b).statistic)
    if abs(rho) > 1 - 1e-9:
        return Correlation(n, rho, rho, rho)
    half_width = 1.96 * sqrt((1 + rho * rho / 2) / (n - 3))
    return Correlation(n, rho, tanh(atanh(rho) - half_width), tanh(atanh(rho) + half_width))


def rank_correlations(run: RunData) -> list[EpochRankCorrelation]:
    """Returns of each epoch before the last its rank correlation with the end over the finished trials."""
    curves = run.epochs_by_trial()
    rows_by_epoch: dict[int, dict[int, EpochRow]] = {}
    final_by_trial: dict[int, float] = {}
    for trial in run.complete_trials():  # best first
        final_by_trial[trial.number] = get_accuracy(trial)
        for row in curves.get(trial.number, [])[:-1]:
            if isfinite(row.accuracy) and isfinite(row.accuracy_raw):
                rows_by_epoch.setdefault(row.epoch, {})[trial.number] = row
    rows = []
    for epoch, rows_by_trial in sorted(rows_by_epoch.items()):
        final_accuracies = [final_by_trial[number] for number in rows_by_trial]
        ema_accuracies = [row.accuracy for row in rows_by_trial.values()]
        num_better = (len(rows_by_trial) + 1) // 2
        ema = spearman(ema_accuracies, final_accuracies)
        if ema is not None:
            raw = spearman([row.accuracy_raw for row in rows_by_trial.values()], final_accuracies)
            rows.append(
                EpochRankCorrelation(
                    epoch, ema, raw, spearman(ema_accuracies[:num_better], final_accuracies[:num_better])
                )
            )
    return rows


def accuracies_by_seed(run: RunData) -> dict[str, dict[int, float]]:
    """Returns {recipe: {seed: test accuracy}}: the best first, then the paper's point, then the controls."""
    order = {"best": 0, "paper": 1}
    rows = [row for row in run.confirmations if isfinite(row.accuracy)]
    rows.sort(key=lambda row: (order.get(row.role, 2), row.role))
    roles_of_several_trials = {
        r.role for r in rows if len({other.trial for other in rows if other.role == r.role}) > 1
    }
    groups: dict[str, dict[int, float]] = {}
    for row in rows:
        name = f"{row.role} (trial {row.trial})" if row.role in roles_of_several_trials else row.role
        groups.setdefault(name, {})[row.seed] = row.accuracy
    return groups
