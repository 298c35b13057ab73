"""Who proposes points and who stops trials: a study's sampler and pruner, as Optuna has them."""

import optuna
from optuna.samplers import BaseSampler

from raykd.driver import rungs_gp
from raykd.study.rungs import first_rung, list_levels
from raykd.study.search import (
    CMAES,
    GP,
    NSGA2,
    QMC,
    TPE,
    CustomSampler,
    Halving,
    Hyperband,
    Median,
    NoPruning,
    Random,
    RungsGPPruner,
    RungsGPSampler,
)
from raykd.study.search_warnings import learns_from_pruned
from raykd.study.study import Study


def make_sampler(study: Study, number: int) -> BaseSampler:
    """Returns the sampler of one trial; its randomness follows from the study's seed and the trial's number.

    What it cannot learn from is said once, at plan and launch (study/search_warnings.py).
    """
    settings, seed, space = study.search.sampler, study.search.seed, study.search_space()
    trial_seed = (seed * 1_000_003 + number) % 2**31
    match settings:
        case TPE():
            return optuna.samplers.TPESampler(
                n_startup_trials=settings.startup_trials, multivariate=settings.multivariate,
                group=settings.grouped, constant_liar=True, seed=trial_seed,
            )  # fmt: skip
        case RungsGPSampler():
            return rungs_gp.RungsGPSampler(
                space, list_levels(study), settings.startup_trials, settings.paper_share, trial_seed
            )
        case GP():
            return optuna.samplers.GPSampler(
                n_startup_trials=settings.startup_trials, warn_independent_sampling=False, seed=trial_seed
            )
        case CMAES():
            return optuna.samplers.CmaEsSampler(
                n_startup_trials=settings.startup_trials,
                consider_pruned_trials=learns_from_pruned(settings, space),
                warn_independent_sampling=False,
                seed=trial_seed,
            )
        case NSGA2():
            return optuna.samplers.NSGAIISampler(population_size=settings.population, seed=trial_seed)
        case QMC():
            return optuna.samplers.QMCSampler(  # one sequence; the position in it is in the journal
                scramble=True, warn_independent_sampling=False, seed=seed
            )
        case Random():
            return optuna.samplers.RandomSampler(seed=trial_seed)
        case CustomSampler():
            sampler: BaseSampler = settings.make(trial_seed)
            return sampler
        case _:
            raise TypeError(f"{type(settings)} is no sampler")


def make_pruner(study: Study) -> optuna.pruners.BasePruner:
    """Returns a study's pruner."""
    settings, epochs = study.search.pruner, study.recipe.epochs
    match settings:
        case RungsGPPruner():
            return rungs_gp.RungsGPPruner(
                study.search_space(), list_levels(study), settings.eta, settings.kappa
            )
        case Halving():
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=first_rung(settings.min_fraction, epochs), reduction_factor=settings.eta
            )
        case Hyperband():
            min_resource = first_rung(settings.min_fraction, epochs)
            return optuna.pruners.HyperbandPruner(
                min_resource=min_resource, max_resource=epochs, reduction_factor=settings.eta
            )
        case Median():
            return optuna.pruners.MedianPruner(
                n_startup_trials=settings.startup_trials,
                n_warmup_steps=first_rung(settings.min_fraction, epochs) - 1,
            )
        case NoPruning():
            return optuna.pruners.NopPruner()
