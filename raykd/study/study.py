"""A Study: what is searched, how, and with what. Reads YAML strictly, opens fields, draws recipes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from raykd.errors import BadInput, checked, nearest, without_password
from raykd.spec import Dimension, Scalar, Spec, apply, called_for
from raykd.study.recipe import Recipe
from raykd.study.space import opened, value_at
from raykd.study.yaml_file import override, read_yaml

Count = Annotated[int, Field(ge=1)]
Address = Annotated[str, AfterValidator(without_password)]


class Budget(Spec):
    """What a study may spend; whichever is used up first ends it."""

    trials: Count = 30
    hours: Annotated[float, Field(gt=0)] | None = None  # on the clock, since this launch or resume
    device_hours: Annotated[float, Field(gt=0)] | None = None  # of all workers: GPUs, or CPUs without one
    disk_gb: Annotated[float, Field(gt=0)] | None = None  # 10^9 bytes, of the run's files


class TPE(Spec):
    kind: Literal["tpe"] = "tpe"
    startup_trials: Count = 10  # drawn at random before the model proposes
    multivariate: bool = True
    grouped: bool = True


class GP(Spec):
    kind: Literal["gp"] = "gp"
    startup_trials: Count = 10


class CMAES(Spec):
    kind: Literal["cmaes"] = "cmaes"
    startup_trials: Count = 1


class NSGA2(Spec):
    kind: Literal["nsga2"] = "nsga2"
    population: Annotated[int, Field(ge=2)] = 20


class QMC(Spec):
    kind: Literal["qmc"] = "qmc"


class Random(Spec):
    kind: Literal["random"] = "random"


Sampler = Annotated[TPE | GP | CMAES | NSGA2 | QMC | Random, Field(discriminator="kind")]


class Halving(Spec):
    """Asynchronous successive halving on epochs: at each rung the best 1/eta go on."""

    kind: Literal["halving"] = "halving"
    grace: Annotated[float, Field(gt=0, le=1)] = 0.2  # the first rung, as a part of the epochs
    eta: Annotated[int, Field(ge=2)] = 3


class Hyperband(Spec):
    kind: Literal["hyperband"] = "hyperband"
    grace: Annotated[float, Field(gt=0, le=1)] = 0.1
    eta: Annotated[int, Field(ge=2)] = 3


class Median(Spec):
    kind: Literal["median"] = "median"
    grace: Annotated[float, Field(gt=0, le=1)] = 0.2
    startup_trials: Count = 5


class NoPruning(Spec):
    kind: Literal["none"] = "none"


Pruner = Annotated[Halving | Hyperband | Median | NoPruning, Field(discriminator="kind")]


Objective = Literal["accuracy", "seconds_per_epoch", "parameters"]


class Search(Spec):
    """How the space is searched. With several objectives the pruner still judges by the accuracy."""

    objectives: tuple[Objective, ...] = ("accuracy",)  # accuracy is maximized, the others are minimized
    sampler: Sampler = TPE()
    pruner: Pruner = Halving()
    seed: Annotated[int, Field(ge=0)] = 0
    storage: Address | None = None  # an Optuna RDB URL; None: a journal file in the run

    @model_validator(mode="after")
    def _serves_the_objectives(self) -> Self:
        if self.objectives[:1] != ("accuracy",) or len(set(self.objectives)) != len(self.objectives):
            raise ValueError("objectives: should be distinct, and accuracy the first of them")
        if len(self.objectives) > 1 and self.sampler.kind == "cmaes":
            raise ValueError("sampler: cmaes takes one objective; all others take several")
        if len(self.objectives) > 1 and self.pruner.kind == "hyperband":
            raise ValueError("pruner: hyperband takes one objective; all others take several")
        return self


class Cluster(Spec):
    """What a trial takes. Trials of one worker run in the Tune actor; of several, as a Ray Train job."""

    workers: Count = 1  # processes that share a trial's batches
    cpus: Annotated[float, Field(gt=0)] = 1.0  # per worker
    gpus: Annotated[float, Field(ge=0)] = 0.0  # per worker; a part of one GPU puts several trials on it
    always_train: bool = False  # Ray Train also for one worker
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0  # a state at least so often, inside an epoch too
    table: Annotated[float, Field(ge=0)] = (
        8.0  # GiB of each node's disk for teachers' answers; 0: none are kept
    )
    tries: Count = 1  # an error in a trial is tried again so often; lost machines do not count
    on_divergence: Literal["prune", "fail"] = "fail"  # what a loss that is not finite makes of a trial

    @property
    def nested(self) -> bool:
        """Whether a trial is a Ray Train job."""
        return self.workers > 1 or self.always_train


class Confirm(Spec):
    """The end of a study: retrain on the full training set with several seeds, and open the test set once."""

    leaders: Count = 1
    controls: tuple[Literal["ce", "kd"], ...] = ("ce", "kd")
    seeds: Count = 3
    workers: Count = 1


class Study(Spec):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    recipe: Recipe
    space: Annotated[dict[str, Any], Field(default_factory=dict)]
    search: Search = Search()
    budget: Budget = Budget()
    cluster: Cluster = Cluster()
    confirm: Confirm | None = Confirm()
    first: tuple[dict[str, bool | int | float | str], ...] = ()  # points to try after the paper's
    warm: Address | None = None  # an earlier run of the same method whose trials the search begins with
    keep: Count = 3  # the students of so many best trials stay on disk

    @model_validator(mode="after")
    def _space_opens(self) -> Self:
        if lines := opened(self.recipe.method.name, self.space)[1] or self._first_point_mistakes():
            raise ValueError("\n".join(lines))
        return self

    @model_validator(mode="after")
    def _workers_share_batches(self) -> Self:
        size, parts = self.recipe.optimizer.batch_size, self.recipe.optimizer.accumulate
        for place, workers in (("cluster", self.cluster), ("confirm", self.confirm)):
            if workers is not None and size % (workers.workers * parts):
                micro = f" in {parts} micro-batches each" if parts > 1 else ""
                raise ValueError(
                    f"{place}/workers = {workers.workers} cannot share recipe/optimizer/batch_size = {size} "
                    f"evenly{micro}"
                )
        return self

    @staticmethod
    def read(path: str | Path, overrides: tuple[str, ...] = ()) -> "Study":
        """A study file; `overrides` are path=value, as for --set. BadInput with every mistake in it."""
        plain = read_yaml(Path(path))
        override(
            plain,
            tuple(
                o if o.split("/")[0].split("=")[0] not in Recipe.model_fields else f"recipe/{o}"
                for o in overrides
            ),
        )
        return Study.parse(plain, str(path))

    @staticmethod
    def parse(plain: dict[str, Any], where: str) -> "Study":
        lines: list[str] = []
        try:
            name = plain["recipe"]["method"]["name"]
            lines = [f"{where}: {line}" for line in opened(name, plain.get("space") or {})[1]]
        except (KeyError, TypeError, ValueError):
            pass  # the method itself is wrong, which the check below says
        try:
            return checked(Study, plain, where)
        except BadInput as error:
            other = [line for line in error.lines if not any(own.split(": ", 1)[1] in line for own in lines)]
            raise BadInput(other + lines) from None

    def begun_with(self, recipes: Sequence[Recipe], warm: str | None) -> "Study":
        """The study with recipes to try after the paper's point, and an earlier run to begin with."""
        first = [*self.first, *(self.point_of(recipe) for recipe in recipes)]
        plain = self.plain() | {"first": first, "warm": warm or self.warm}
        return Study.parse(plain, "--first")

    def plain(self) -> dict[str, Any]:
        data: dict[str, Any] = self.model_dump(mode="json")
        return data

    def opened(self) -> dict[str, Dimension]:
        """What is searched: {path in the recipe: Range | Choice}, parents before the parts that they call
        for.
        """
        return opened(self.recipe.method.name, self.space)[0]

    def paper_point(self) -> dict[str, Scalar]:
        """The recipe's own value of every opened field: the first trial."""
        return self.point_of(self.recipe)

    def point_of(self, recipe: Recipe) -> dict[str, Scalar]:
        """A recipe's values of the opened fields."""
        plain = recipe.plain()
        point: dict[str, Scalar] = {}
        for path, dimension in self.opened().items():
            if called_for(dimension, point):
                point[path] = value_at(plain, path)
        return point

    def drawn(self, values: dict[str, Scalar]) -> Recipe:
        """The study's recipe with drawn values, validated anew."""
        return Recipe.model_validate_json(json.dumps(apply(self.recipe.plain(), values)))

    def _first_point_mistakes(self) -> list[str]:
        """The paper's point and the study's own first points must lie in the space."""
        space, mistakes = self.opened(), []
        for path, value in self.paper_point().items():
            if not space[path].holds(value):
                mistakes.append(
                    f"space/{path}: {space[path]} leaves out recipe/{path} = {value}, the first trial"
                )
        for place, point in enumerate(self.first):
            for path, value in point.items():
                if path not in space:
                    mistakes.append(f"first/{place}/{path}: not searched.{nearest(path, space)}")
                elif not space[path].holds(value):
                    mistakes.append(f"first/{place}/{path} = {value}: outside {space[path]}")
        return mistakes
