"""What a study's sampler makes nothing of and what makes its trials slow, said before the study is run."""

import math

from raykd.spec import Choice, Dimension
from raykd.study.search import CMAES, NSGA2, CustomSampler, Sampler
from raykd.study.study import Study

LAUNCHES_PER_IMAGE = 267  # counted on fake CUDA tensors: 17,100 a step of 64 images
ENOUGH_GENERATIONS = 10  # of an evolutionary sampler; with fewer it is little better than random draws


def list_search_warnings(study: Study) -> list[str]:
    """Returns a line each on what the sampler cannot learn from, and what makes trials slow, or unequal."""
    return [*_describe_sampler(study), *_describe_slow_steps(study), *_describe_elastic_workers(study)]


def _describe_elastic_workers(study: Study) -> list[str]:
    workers = study.cluster.workers
    if workers.min == workers.max or study.recipe.batch_norm == "synced":
        return []
    return ["cluster/workers: batch_norm = local normalizes by each worker's share, whose size then changes "
            "with their number: trials compare with recipe/batch_norm=synced"]  # fmt: skip


def _describe_slow_steps(study: Study) -> list[str]:
    if getattr(study.recipe.method, "sampling", None) != "per_sample":
        return []
    cost = f"about {LAUNCHES_PER_IMAGE * study.recipe.optimizer.batch_size:,} launches of a GPU a step"
    return [f"method/sampling: per_sample takes {cost}, some hours a trial (estimated); shared takes a few"]


def _describe_sampler(study: Study) -> list[str]:
    sampler, space, limits = study.search.sampler, study.search_space(), []
    if sampler.kind in ("qmc", "random") or isinstance(sampler, CustomSampler):
        return []  # they never learn, as their names say; of a plugin's nothing is known
    if study.search.pruner.kind != "none" and not learns_from_pruned(sampler, space):
        limits.append("learns from complete trials alone, not from those that search/pruner stops")
    generation = _count_generation(sampler, space)
    if generation and study.budget.trials < ENOUGH_GENERATIONS * generation:
        times = study.budget.trials // generation
        limits.append(f"learns after each {generation} trials only: {times} times in {study.budget.trials}")
    if at_random := [path for path, dimension in space.items() if _is_random(sampler, dimension)]:
        limits.append(f"draws at random {', '.join(at_random)}")
    return [f"search/sampler: {sampler.kind} {', and '.join(limits)}; tpe learns from all"] if limits else []


def _count_generation(sampler: Sampler, space: dict[str, Dimension]) -> int:
    """The trials of a generation, after which an evolutionary sampler learns; 0: it learns after each."""
    match sampler:
        case NSGA2():
            return sampler.population
        case CMAES():
            return 4 + math.floor(3 * math.log(max(1, len(space))))  # cmaes' own, by the number of fields
    return 0


def learns_from_pruned(sampler: Sampler, space: dict[str, Dimension]) -> bool:
    """Returns whether a sampler learns from pruned trials, too.

    rungs_gp and Optuna's TPESampler do. GPSampler and NSGAIISampler do not. CmaEsSampler does when it is told
    to, but fails with it on a pruned trial that lacks a field which all complete ones have.
    """
    is_conditional = any(dimension.conditions for dimension in space.values())
    return sampler.kind in ("tpe", "rungs_gp") or (sampler.kind == "cmaes" and not is_conditional)


def _is_random(sampler: Sampler, dimension: Dimension) -> bool:
    """GPSampler and CmaEsSampler model the fields that all trials have; the latter, no choices."""
    is_choice = isinstance(dimension, Choice)
    return (sampler.kind in ("gp", "cmaes") and bool(dimension.conditions)) or (
        sampler.kind == "cmaes" and is_choice
    )
