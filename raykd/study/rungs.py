"""The epochs at which a pruner may stop a trial."""

from raykd.study.study import Study


def first_rung(min_fraction: float, epochs: int) -> int:
    """Returns the first epoch at which a pruner may stop a trial of so many epochs."""
    return max(1, round(min_fraction * epochs))


def list_rungs(study: Study) -> list[int]:
    """Returns the rungs of successive halving and of Hyperband, in epochs; of other pruners none."""
    pruner, epochs = study.search.pruner, study.recipe.epochs
    if pruner.kind not in ("halving", "hyperband"):
        return []
    rung, rungs = first_rung(pruner.min_fraction, epochs), []
    while rung < epochs:
        rungs.append(rung)
        rung *= pruner.eta
    return rungs
