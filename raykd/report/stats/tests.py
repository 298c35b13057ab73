"""The few statistics that a report states: intervals of means, paired differences, rank correlations."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, isfinite, sqrt, tanh

import numpy as np
from scipy import stats

from raykd.report.rows.types import EpochRow, RunData, accuracy

FEWEST = 5  # trials, for a rank correlation to be stated
SAME = 1e-9  # points; differences that vary by less are all the same, and their t says nothing


@dataclass(frozen=True)
class Mean:
    """A mean with half the width of its 95 % t interval; None with fewer than two values."""

    n: int
    mean: float
    half: float | None


@dataclass(frozen=True)
class Paired:
    """Mean difference a - b over common seeds; p of the paired t test, None where it says nothing."""

    n: int
    mean: float
    half: float | None
    p: float | None


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho with its 95 % interval (Fisher's z with the variance of Bonett and Wright, 2000)."""

    n: int
    rho: float
    low: float
    high: float


@dataclass(frozen=True)
class RankRow:
    """How well the accuracy at one epoch ranks the trials as the end does."""

    epoch: int
    averaged: Correlation
    raw: Correlation | None
    best_half: Correlation | None  # averaged weights, among the better half of the trials


def mean_interval(values: Sequence[float]) -> Mean:
    n = len(values)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / sqrt(n)) if n > 1 else None
    return Mean(n, float(np.mean(values)), half)


def paired(a: dict[int, float], b: dict[int, float]) -> Paired | None:
    """The difference of two recipes by seed; None without a common seed."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    difference = [a[s] - b[s] for s in seeds]
    mean = mean_interval(difference)
    error = float(np.std(difference, ddof=1)) / sqrt(mean.n) if mean.n > 1 else 0.0
    p = float(2 * stats.t.sf(abs(mean.mean) / error, mean.n - 1)) if error > SAME else None
    return Paired(mean.n, mean.mean, mean.half, p)


def holm(chances: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm, 1979), in the order given."""
    known = sorted((p, i) for i, p in enumerate(chances) if p is not None)
    result: list[float | None] = [None] * len(chances)
    floor = 0.0
    for rank, (p, i) in enumerate(known):
        floor = max(floor, min(1.0, p * (len(known) - rank)))
        result[i] = floor
    return result


def spearman(a: Sequence[float], b: Sequence[float]) -> Correlation | None:
    """None with fewer than FEWEST pairs, or where one side does not vary."""
    n = len(a)
    if n < FEWEST or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    rho = float(stats.spearmanr(a, b).statistic)
    if abs(rho) > 1 - 1e-9:
        return Correlation(n, rho, rho, rho)
    half = 1.96 * sqrt((1 + rho * rho / 2) / (n - 3))
    return Correlation(n, rho, tanh(atanh(rho) - half), tanh(atanh(rho) + half))


def rank_correlations(run: RunData) -> list[RankRow]:
    """Of each epoch before the last: its rank correlation with the end over the finished trials."""
    curves = run.curves()
    at: dict[int, dict[int, EpochRow]] = {}
    final: dict[int, float] = {}
    for trial in run.finished():  # best first
        final[trial.number] = accuracy(trial)
        for row in curves.get(trial.number, [])[:-1]:
            if isfinite(row.accuracy) and isfinite(row.accuracy_raw):
                at.setdefault(row.epoch, {})[trial.number] = row
    rows = []
    for epoch, of in sorted(at.items()):
        end = [final[number] for number in of]
        averaged = [row.accuracy for row in of.values()]
        half = (len(of) + 1) // 2
        whole = spearman(averaged, end)
        if whole is not None:
            raw = spearman([row.accuracy_raw for row in of.values()], end)
            rows.append(RankRow(epoch, whole, raw, spearman(averaged[:half], end[:half])))
    return rows


def by_seed(run: RunData) -> dict[str, dict[int, float]]:
    """{who: {seed: test accuracy}}: the best first, then the paper's point, then the controls."""
    order = {"best": 0, "paper": 1}
    rows = [row for row in run.confirm if isfinite(row.accuracy)]
    rows.sort(key=lambda row: (order.get(row.role, 2), row.role))
    several = {r.role for r in rows if len({other.trial for other in rows if other.role == r.role}) > 1}
    groups: dict[str, dict[int, float]] = {}
    for row in rows:
        name = f"{row.role} (trial {row.trial})" if row.role in several else row.role
        groups.setdefault(name, {})[row.seed] = row.accuracy
    return groups
