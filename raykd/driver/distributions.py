"""A dimension of a search space in Optuna's words."""

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from raykd.spec import Choice, Dimension, Scalar


def to_distribution(dimension: Dimension) -> BaseDistribution:
    """Returns a dimension as one of Optuna's distributions."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    low, high, log, step = dimension.low, dimension.high, dimension.log, dimension.step
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return FloatDistribution(low, high, log=log, step=step)


def suggest(trial: Trial, path: str, dimension: Dimension) -> Scalar:
    """Returns one dimension's value from Optuna, under its path."""
    if isinstance(dimension, Choice):
        choice = trial.suggest_categorical(path, dimension.values)
        assert choice is not None  # as no dimension holds it
        return choice
    low, high, log, step = dimension.low, dimension.high, dimension.log, dimension.step
    if dimension.integer:
        return trial.suggest_int(path, int(low), int(high), log=log, step=int(step or 1))
    return trial.suggest_float(path, low, high, log=log, step=step)
