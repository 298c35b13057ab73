"""Which fields decide the accuracy: permutation importances of a random forest on unseen trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import RepeatedKFold

from raykd.report.rows.types import RunData, TrialRow, accuracy
from raykd.spec import Choice, Dimension, Scalar

FEWEST = 12  # trials that reached the same epoch
FOLDS, REPEATS, SHUFFLES, TREES = 5, 2, 5, 48
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """By how many points of accuracy the forest's error grows when this field's values are shuffled."""

    path: str
    mean: float
    low: float  # 95 % interval
    high: float
    n: int  # of these trials, those in which it was drawn


@dataclass(frozen=True)
class Importances:
    rows: tuple[Importance, ...]  # the most important first
    n: int  # trials judged
    error: float  # the forest's mean absolute error on unseen trials, points
    baseline: float  # that of always answering the median
    epoch: int  # at which the trials were judged; where pruning left few finished ones, an earlier one

    def says(self) -> str:
        """One sentence on how far the forest is to be trusted."""
        told = f"On unseen trials the forest errs by {self.error:.2f} points; always answering the median, by"
        verdict = (
            "" if self.error < 0.8 * self.baseline else " It hardly predicts: read the order with caution."
        )
        reached = f"Judged at epoch {self.epoch}, which {self.n} trials reached."
        return f"{reached} {told} {self.baseline:.2f}.{verdict}"


def unit(dimension: Dimension, value: Scalar | None) -> float:
    """A drawn value on the scale of its range, 0 .. 1; nan where it was not drawn or does not belong."""
    if isinstance(dimension, Choice):
        if value is None or not dimension.holds(value):
            return float("nan")
        return dimension.values.index(value) / max(1, len(dimension.values) - 1)
    if not isinstance(value, int | float) or isinstance(value, bool) or (dimension.log and value <= 0):
        return float("nan")
    if dimension.log:
        return log(value / dimension.low) / log(dimension.high / dimension.low)
    return (value - dimension.low) / (dimension.high - dimension.low)


def matrix(run: RunData, paths: Sequence[str], trials: Sequence[TrialRow]) -> Matrix:
    """One row a trial, one column a path; nan where it was not drawn."""
    cells = [[unit(run.space[path], trial.drawn.get(path)) for path in paths] for trial in trials]
    return np.array(cells, dtype=np.float64).reshape(len(trials), len(paths))


def varied(run: RunData, trials: Sequence[TrialRow]) -> list[str]:
    """The paths that took at least two values in these trials, in the order of the space."""
    paths = list(run.space)
    table = matrix(run, paths, trials)
    return [
        path
        for path, column in zip(paths, table.T, strict=True)
        if np.unique(column[~np.isnan(column)]).size > 1
    ]


def leading(run: RunData, found: Importances | str) -> list[str]:
    """The varied paths, the most important first where that is known."""
    return varied(run, run.finished()) if isinstance(found, str) else [row.path for row in found.rows]


def judged(run: RunData) -> tuple[list[TrialRow], list[float], int]:
    """Trials, their accuracies and the epoch these are of: the last that enough trials reached, pruned ones
    too.
    """
    finished = sorted(run.finished(), key=lambda t: t.number)
    if len(finished) >= FEWEST:
        return finished, [accuracy(trial) for trial in finished], run.budget_epochs
    curves = run.curves()
    ended = {t.number: t for t in run.trials if t.state in ("COMPLETE", "PRUNED")}
    for epoch in range(run.budget_epochs, 0, -1):
        at = {n: row.accuracy for n in ended for row in curves.get(n, []) if row.epoch == epoch}
        reached = {n: value for n, value in at.items() if np.isfinite(value)}
        if len(reached) >= FEWEST:
            return [ended[n] for n in reached], list(reached.values()), epoch
    return finished, [accuracy(trial) for trial in finished], run.budget_epochs


def importances(run: RunData) -> Importances | str:
    """The importances, or why there are none."""
    trials, answers, epoch = judged(run)
    paths = varied(run, trials)
    if len(trials) < FEWEST:
        return f"Importances need {FEWEST} trials that reached the same epoch; this run has {len(trials)}."
    if not paths:
        return "No field took two values in the trials, so none can be more important than another."
    table = matrix(run, paths, trials)
    target = np.array(answers)
    growth, errors, baselines = [], [], []
    splits = RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0)
    for seed, (seen, unseen) in enumerate(splits.split(table)):
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, max_features=0.6, random_state=seed)
        forest.fit(_filled(table[seen]), target[seen])
        error = float(np.abs(forest.predict(_filled(table[unseen])) - target[unseen]).mean())
        growth.append(_growth(forest, table[unseen], target[unseen], np.random.default_rng(seed)) - error)
        errors.append(error)
        baselines.append(float(np.abs(np.median(target[seen]) - target[unseen]).mean()))
    rows = _rows(np.array(growth), paths, (~np.isnan(table)).sum(axis=0))
    return Importances(rows, len(trials), float(np.mean(errors)), float(np.mean(baselines)), epoch)


def _filled(table: Matrix) -> Matrix:
    return np.where(np.isnan(table), -1.0, table)


def _growth(forest: RandomForestRegressor, table: Matrix, target: Matrix, rng: np.random.Generator) -> Matrix:
    """The forest's error with each field shuffled; a conditional field among those that drew it."""
    copies = []
    for column in range(table.shape[1]):
        drawn = np.flatnonzero(~np.isnan(table[:, column]))
        for _ in range(SHUFFLES):
            copy = table.copy()
            copy[drawn, column] = table[rng.permutation(drawn), column]
            copies.append(copy)
    answers = forest.predict(_filled(np.concatenate(copies))).reshape(table.shape[1], SHUFFLES, len(target))
    return np.asarray(np.abs(answers - target).mean(axis=(1, 2)), dtype=np.float64)


def _rows(growth: Matrix, paths: Sequence[str], drawn: NDArray[np.int64]) -> tuple[Importance, ...]:
    """Means over folds; the t interval allows for shared training trials (Nadeau and Bengio, 2003)."""
    folds = len(growth)
    widen = sqrt(1 / folds + 1 / (FOLDS - 1))
    half = stats.t.ppf(0.975, folds - 1) * growth.std(axis=0, ddof=1) * widen
    mean = growth.mean(axis=0)
    rows = [
        Importance(path, float(m), float(m - h), float(m + h), int(n))
        for path, m, h, n in zip(paths, mean, half, drawn, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: -row.mean))
