"""The epochs at which a pruner may stop a trial."""

from collections.abc import Mapping
from itertools import takewhile

from raykd.study.search import Halving
from raykd.study.study import Study

ENOUGH_CORRELATION = 0.5  # of a rung with the end


def first_rung(min_fraction: float, epochs: int) -> int:
    """Returns the first epoch at which a pruner may stop a trial of so many epochs."""
    return max(1, round(min_fraction * epochs))


def recommend_first_rung(correlations: Mapping[int, float]) -> int | None:
    """Returns the earliest epoch from which on accuracies rank trials well enough; None where none does.

    Args:
        correlations: By epoch, the low end of the interval of the rank correlation with the end.
    """
    late = sorted(correlations, reverse=True)
    good = list(takewhile(lambda epoch: correlations[epoch] >= ENOUGH_CORRELATION, late))
    return good[-1] if good else None


def list_rungs(study: Study) -> list[int]:
    """Returns the rungs of halving and of Hyperband, in epochs; of other pruners none."""
    pruner, epochs = study.search.pruner, study.recipe.epochs
    if pruner.kind not in ("halving", "rungs_gp", "hyperband"):
        return []
    return _list_rungs(pruner.min_fraction, pruner.eta, epochs)


def _list_rungs(min_fraction: float, eta: int, epochs: int) -> list[int]:
    rung, rungs = first_rung(min_fraction, epochs), []
    while rung < epochs:
        rungs.append(rung)
        rung *= eta
    return rungs


def list_levels(study: Study) -> list[int]:
    """Returns the epochs at which a model compares trials: the rungs, or halving's where there are none.

    The last is the end.
    """
    epochs = study.recipe.epochs
    return [*(list_rungs(study) or _list_rungs(Halving().min_fraction, Halving().eta, epochs)), epochs]
