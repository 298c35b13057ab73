"""Who proposes points and who stops trials: a study's sampler and pruner, as Optuna has them."""

import optuna
from optuna.samplers import BaseSampler

from raykd.study import study as spec


def sampler(settings: spec.Sampler, seed: int, number: int) -> BaseSampler:
    """The sampler for one trial. Its randomness follows from the study's seed and the trial's number."""
    own = (seed * 1_000_003 + number) % 2**31
    match settings:
        case spec.TPE():
            return optuna.samplers.TPESampler(
                n_startup_trials=settings.startup_trials, multivariate=settings.multivariate,
                group=settings.grouped, constant_liar=True, seed=own,
            )  # fmt: skip
        case spec.GP():
            return optuna.samplers.GPSampler(n_startup_trials=settings.startup_trials, seed=own)
        case spec.CMAES():
            return optuna.samplers.CmaEsSampler(n_startup_trials=settings.startup_trials, seed=own)
        case spec.NSGA2():
            return optuna.samplers.NSGAIISampler(population_size=settings.population, seed=own)
        case spec.QMC():
            return optuna.samplers.QMCSampler(
                scramble=True, seed=seed
            )  # one sequence; its place is in the journal
        case spec.Random():
            return optuna.samplers.RandomSampler(seed=own)


def pruner(settings: spec.Pruner, epochs: int) -> optuna.pruners.BasePruner:
    match settings:
        case spec.Halving():
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=first_rung(settings.grace, epochs), reduction_factor=settings.eta
            )
        case spec.Hyperband():
            first = first_rung(settings.grace, epochs)
            return optuna.pruners.HyperbandPruner(
                min_resource=first, max_resource=epochs, reduction_factor=settings.eta
            )
        case spec.Median():
            return optuna.pruners.MedianPruner(
                n_startup_trials=settings.startup_trials,
                n_warmup_steps=first_rung(settings.grace, epochs) - 1,
            )
        case spec.NoPruning():
            return optuna.pruners.NopPruner()


def first_rung(grace: float, epochs: int) -> int:
    return max(1, round(grace * epochs))
