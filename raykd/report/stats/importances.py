"""Which parameters decide the accuracy: permutation importances of a random forest on unseen trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import RepeatedKFold

from raykd.maths import interval
from raykd.report.rows.types import RunData, TrialRow, get_accuracy
from raykd.spec import Choice, Dimension, Scalar

MIN_TRIALS = 12  # trials that reached the same epoch
FOLDS, REPEATS, SHUFFLES, TREES = 5, 2, 5, 48
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """By how many points of accuracy the forest's error grows when this parameter's values are shuffled."""

    path: str
    mean: float
    low: float  # 95 % interval
    high: float
    n: int  # of these trials, those in which it was active


@dataclass(frozen=True)
class Importances:
    """The importances of a run's parameters, and how well the forest behind them predicts."""

    rows: tuple[Importance, ...]  # the most important first
    n: int  # trials judged
    error: float  # the forest's mean absolute error on unseen trials, points
    baseline: float  # that of always answering the median
    epoch: int  # at which the trials were judged; where pruning left few finished ones, an earlier one

    def description(self) -> str:
        """Returns one sentence on how far the forest is to be trusted."""
        comparison = (
            f"On unseen trials the forest errs by {self.error:.2f} points; always answering the median, by"
        )
        verdict = (
            "" if self.error < 0.8 * self.baseline else " It hardly predicts: read the order with caution."
        )
        reached = f"Judged at epoch {self.epoch}, which {self.n} trials reached."
        return f"{reached} {comparison} {self.baseline:.2f}.{verdict}"


def scale_to_unit(dimension: Dimension, value: Scalar | None) -> float:
    """Returns a parameter's value on the scale of its range, 0 .. 1; nan where not active or out of place."""
    if isinstance(dimension, Choice):
        if value is None or not dimension.contains(value):
            return float("nan")
        return dimension.values.index(value) / max(1, len(dimension.values) - 1)
    if not isinstance(value, int | float) or isinstance(value, bool) or (dimension.log and value <= 0):
        return float("nan")
    if dimension.log:
        return log(value / dimension.low) / log(dimension.high / dimension.low)
    return (value - dimension.low) / (dimension.high - dimension.low)


def build_matrix(run: RunData, paths: Sequence[str], trials: Sequence[TrialRow]) -> Matrix:
    """Returns a matrix of one row a trial, one column a path; nan where it was not active."""
    cells = [[scale_to_unit(run.space[path], trial.params.get(path)) for path in paths] for trial in trials]
    return np.array(cells, dtype=np.float64).reshape(len(trials), len(paths))


def find_varied_paths(run: RunData, trials: Sequence[TrialRow]) -> list[str]:
    """Returns the paths that took at least two values in these trials, in the order of the space."""
    paths = list(run.space)
    features = build_matrix(run, paths, trials)
    return [
        path
        for path, column in zip(paths, features.T, strict=True)
        if np.unique(column[~np.isnan(column)]).size > 1
    ]


def rank_paths(run: RunData, importances: Importances | str) -> list[str]:
    """Returns the varied paths, the most important first where that is known."""
    return (
        find_varied_paths(run, run.complete_trials())
        if isinstance(importances, str)
        else [row.path for row in importances.rows]
    )


def select_trials(run: RunData) -> tuple[list[TrialRow], list[float], int]:
    """Returns trials, their accuracies and the epoch these are of.

    It is the last that enough trials reached, pruned ones too.
    """
    complete = sorted(run.complete_trials(), key=lambda t: t.number)
    if len(complete) >= MIN_TRIALS:
        return complete, [get_accuracy(trial) for trial in complete], run.budget_epochs
    curves = run.epochs_by_trial()
    ended = {t.number: t for t in run.trials if t.state in ("COMPLETE", "PRUNED")}
    for epoch in range(run.budget_epochs, 0, -1):
        accuracy_at = {n: row.accuracy for n in ended for row in curves.get(n, []) if row.epoch == epoch}
        reached = {n: value for n, value in accuracy_at.items() if np.isfinite(value)}
        if len(reached) >= MIN_TRIALS:
            return [ended[n] for n in reached], list(reached.values()), epoch
    return complete, [get_accuracy(trial) for trial in complete], run.budget_epochs


def compute_importances(run: RunData) -> Importances | str:
    """Returns the importances, or why there are none."""
    trials, accuracies, epoch = select_trials(run)
    paths = find_varied_paths(run, trials)
    if len(trials) < MIN_TRIALS:
        return (
            f"Importances need {MIN_TRIALS} trials that reached the same epoch; this run has {len(trials)}."
        )
    if not paths:
        return "No parameter took two values in the trials, so none can be more important than another."
    features = build_matrix(run, paths, trials)
    target = np.array(accuracies)
    error_growth, errors, baselines = [], [], []
    splits = RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0)
    for seed, (seen, unseen) in enumerate(splits.split(features)):
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, max_features=0.6, random_state=seed)
        forest.fit(_fill_nan(features[seen]), target[seen])
        error = float(np.abs(forest.predict(_fill_nan(features[unseen])) - target[unseen]).mean())
        error_growth.append(
            _shuffled_errors(forest, features[unseen], target[unseen], np.random.default_rng(seed)) - error
        )
        errors.append(error)
        baselines.append(float(np.abs(np.median(target[seen]) - target[unseen]).mean()))
    rows = _summarise(np.array(error_growth), paths, (~np.isnan(features)).sum(axis=0))
    return Importances(rows, len(trials), float(np.mean(errors)), float(np.mean(baselines)), epoch)


def _fill_nan(features: Matrix) -> Matrix:
    return np.where(np.isnan(features), -1.0, features)


def _shuffled_errors(
    forest: RandomForestRegressor, features: Matrix, target: Matrix, rng: np.random.Generator
) -> Matrix:
    """The forest's error with each parameter shuffled; a conditional one among its trials."""
    copies = []
    for column in range(features.shape[1]):
        rows_with_value = np.flatnonzero(~np.isnan(features[:, column]))
        for _ in range(SHUFFLES):
            copy = features.copy()
            copy[rows_with_value, column] = features[rng.permutation(rows_with_value), column]
            copies.append(copy)
    predictions = forest.predict(_fill_nan(np.concatenate(copies))).reshape(
        features.shape[1], SHUFFLES, len(target)
    )
    return np.asarray(np.abs(predictions - target).mean(axis=(1, 2)), dtype=np.float64)


def _summarise(
    error_growth: Matrix, paths: Sequence[str], num_active: NDArray[np.int64]
) -> tuple[Importance, ...]:
    """Means over folds; the t interval allows for shared training trials (Nadeau and Bengio, 2003)."""
    widen = sqrt(1 + len(error_growth) / (FOLDS - 1))
    rows = []
    for path, growth, n in zip(paths, error_growth.T, num_active, strict=True):
        mean, margin = float(growth.mean()), (interval.half_width(growth.tolist()) or 0.0) * widen
        rows.append(Importance(path, mean, mean - margin, mean + margin, int(n)))
    return tuple(sorted(rows, key=lambda row: -row.mean))
