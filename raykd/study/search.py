"""How a space is searched: objectives, sampler and pruner, in Optuna's words."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, Field, model_validator

from raykd import plugins
from raykd.metric import METRICS, Metric
from raykd.paths import resolve_database
from raykd.spec import ByTag, Count, Seed, Spec


class Sampler(Spec):
    """Who proposes points."""

    kind: str


class CustomSampler(Sampler, ABC):
    """A plugin's sampler: its settings, and the Optuna sampler that they make."""

    @abstractmethod
    def make(self, seed: int) -> Any:
        """Returns an optuna.samplers.BaseSampler for one trial; `seed` is of the study and the trial."""


class TPE(Sampler):
    """Tree-structured Parzen estimator (Optuna's TPESampler)."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: Count = 10  # drawn at random before the model proposes
    multivariate: bool = True
    grouped: bool = True


class RungsGPSampler(Sampler):
    """Expected improvement of the end by a Gaussian process over the rungs (maths/rungs_gp.py)."""

    kind: Literal["rungs_gp"] = "rungs_gp"
    startup_trials: Annotated[int, Field(ge=3)] = 8  # that reached a rung, before the model proposes
    paper_share: Annotated[float, Field(ge=0, le=1)] = 0.5  # of the first points; shrinks as trials come


class GP(Sampler):
    """Gaussian process (Optuna's GPSampler)."""

    kind: Literal["gp"] = "gp"
    startup_trials: Count = 10


class CMAES(Sampler):
    """Covariance matrix adaptation (Optuna's CmaEsSampler)."""

    kind: Literal["cmaes"] = "cmaes"
    startup_trials: Count = 1


class NSGA2(Sampler):
    """An evolutionary search of the Pareto front (Optuna's NSGAIISampler)."""

    kind: Literal["nsga2"] = "nsga2"
    population: Annotated[int, Field(ge=2)] = 20


class QMC(Sampler):
    """Quasi-random points, evenly spread (Optuna's QMCSampler)."""

    kind: Literal["qmc"] = "qmc"


class Random(Sampler):
    """Random points (Optuna's RandomSampler)."""

    kind: Literal["random"] = "random"


SAMPLERS: Mapping[str, type[Sampler]] = MappingProxyType({
    "tpe": TPE, "rungs_gp": RungsGPSampler, "gp": GP, "cmaes": CMAES, "nsga2": NSGA2, "qmc": QMC,
    "random": Random,
})  # fmt: skip


def list_samplers() -> tuple[str, ...]:
    """Returns the kinds of all samplers. UserError when plugins offer one that is taken."""
    return (*SAMPLERS, *plugins.list_names("samplers", SAMPLERS))


def get_sampler(kind: str) -> type[Sampler]:
    """Returns the settings' class of a sampler of `list_samplers`. UserError when a plugin's is none."""
    sampler: type[Sampler] = SAMPLERS.get(kind) or plugins.load_spec("samplers", kind, CustomSampler, "kind")
    return sampler


class Halving(Spec):
    """Asynchronous successive halving on epochs: at each rung the best 1/eta go on."""

    kind: Literal["halving"] = "halving"
    min_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2  # the first rung, as a part of the epochs
    eta: Annotated[int, Field(ge=2)] = 3


class RungsGPPruner(Spec):
    """Halving by the ends that a Gaussian process over the rungs predicts (maths/rungs_gp.py)."""

    kind: Literal["rungs_gp"] = "rungs_gp"
    min_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    eta: Annotated[int, Field(ge=2)] = 3
    kappa: Annotated[float, Field(ge=0)] = 0.5  # standard deviations above the mean that a prediction counts


class Hyperband(Spec):
    """Several brackets of successive halving, each with another first rung (Optuna's HyperbandPruner)."""

    kind: Literal["hyperband"] = "hyperband"
    min_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    eta: Annotated[int, Field(ge=2)] = 3


class Median(Spec):
    """A trial worse than the median of the others at the same epoch stops (Optuna's MedianPruner)."""

    kind: Literal["median"] = "median"
    min_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    startup_trials: Count = 5


class NoPruning(Spec):
    """Every trial is trained to its end."""

    kind: Literal["none"] = "none"


Pruner = Annotated[Halving | RungsGPPruner | Hyperband | Median | NoPruning, Field(discriminator="kind")]


Objective = Metric | Literal["seconds_per_epoch", "parameters"]


class Search(Spec):
    """How the space is searched. With several objectives the pruner still judges by the first, the metric."""

    # the first is a metric (raykd/metric.py), by which trials are judged; the others are minimized
    objectives: tuple[Objective, ...] = ("accuracy",)
    sampler: Annotated[Sampler, ByTag("kind", list_samplers, get_sampler)] = TPE()
    pruner: Pruner = Halving()
    seed: Seed = 0
    # the search ends when rungs_gp expects less than so many points of accuracy of three proposals in a row
    tolerance: Annotated[float, Field(gt=0)] | None = None
    # an Optuna RDB URL, a SQLite file relative to the current folder; None: a journal file in the run
    storage: Annotated[str, AfterValidator(resolve_database)] | None = None

    @property
    def metric(self) -> Metric:
        """By what trials are judged."""
        return cast(Metric, self.objectives[0])

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        are_metrics = [name in METRICS for name in self.objectives]
        if are_metrics[:1] != [True] or sum(are_metrics) > 1 or len(set(self.objectives)) != len(are_metrics):
            metrics = ", ".join(METRICS)
            raise ValueError(f"objectives: should be distinct, one of {metrics} the first, the others costs")
        if len(self.objectives) > 1 and self.sampler.kind == "cmaes":
            raise ValueError("sampler: cmaes takes one objective; tpe, gp, nsga2 and random take several")
        if self.tolerance is not None and self.sampler.kind != "rungs_gp":
            raise ValueError("tolerance: needs the sampler rungs_gp, which says what it expects")
        if len(self.objectives) > 1 and "rungs_gp" in (self.sampler.kind, self.pruner.kind):
            raise ValueError("sampler, pruner: rungs_gp takes one objective; tpe and halving take several")
        if len(self.objectives) > 1 and self.pruner.kind == "hyperband":
            raise ValueError("pruner: hyperband takes one objective; all others take several")
        return self
