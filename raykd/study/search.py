"""How a space is searched: objectives, sampler and pruner, in Optuna's words."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from raykd.paths import resolve_database
from raykd.spec import Seed, Spec

Count = Annotated[int, Field(ge=1)]


class TPE(Spec):
    """Tree-structured Parzen estimator (Optuna's TPESampler)."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: Count = 10  # drawn at random before the model proposes
    multivariate: bool = True
    grouped: bool = True


class GP(Spec):
    """Gaussian process (Optuna's GPSampler)."""

    kind: Literal["gp"] = "gp"
    startup_trials: Count = 10


class CMAES(Spec):
    """Covariance matrix adaptation (Optuna's CmaEsSampler)."""

    kind: Literal["cmaes"] = "cmaes"
    startup_trials: Count = 1


class NSGA2(Spec):
    """An evolutionary search of the Pareto front (Optuna's NSGAIISampler)."""

    kind: Literal["nsga2"] = "nsga2"
    population: Annotated[int, Field(ge=2)] = 20


class QMC(Spec):
    """Quasi-random points, evenly spread (Optuna's QMCSampler)."""

    kind: Literal["qmc"] = "qmc"


class Random(Spec):
    """Random points (Optuna's RandomSampler)."""

    kind: Literal["random"] = "random"


Sampler = Annotated[TPE | GP | CMAES | NSGA2 | QMC | Random, Field(discriminator="kind")]


class Halving(Spec):
    """Asynchronous successive halving on epochs: at each rung the best 1/eta go on."""

    kind: Literal["halving"] = "halving"
    min_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2  # the first rung, as a part of the epochs
    eta: Annotated[int, Field(ge=2)] = 3


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


Pruner = Annotated[Halving | Hyperband | Median | NoPruning, Field(discriminator="kind")]


Objective = Literal["accuracy", "seconds_per_epoch", "parameters"]


class Search(Spec):
    """How the space is searched. With several objectives the pruner still judges by the accuracy."""

    objectives: tuple[Objective, ...] = ("accuracy",)  # accuracy is maximized, the others are minimized
    sampler: Sampler = TPE()
    pruner: Pruner = Halving()
    seed: Seed = 0
    # an Optuna RDB URL, a SQLite file relative to the current folder; None: a journal file in the run
    storage: Annotated[str, AfterValidator(resolve_database)] | None = None

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        if self.objectives[:1] != ("accuracy",) or len(set(self.objectives)) != len(self.objectives):
            raise ValueError("objectives: should be distinct, and accuracy the first of them")
        if len(self.objectives) > 1 and self.sampler.kind == "cmaes":
            raise ValueError("sampler: cmaes takes one objective; all others take several")
        if len(self.objectives) > 1 and self.pruner.kind == "hyperband":
            raise ValueError("pruner: hyperband takes one objective; all others take several")
        return self
