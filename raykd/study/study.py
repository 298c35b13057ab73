"""A Study: what is searched, how, and with what. Reads YAML strictly, makes recipes."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raykd.errors import UserError, find_nearest, shorten, suggest_nearest, validate
from raykd.paths import AbsolutePath
from raykd.spec import Count, Dimension, Scalar, Spec, apply_params, get_value, is_active
from raykd.study.cluster import Cluster
from raykd.study.constraints import Constraints, list_net_params
from raykd.study.recipe import Recipe
from raykd.study.search import Search
from raykd.study.space import build_search_space, count_points
from raykd.study.yaml_file import override, read_yaml


class Budget(Spec):
    """What a study may spend; whichever is used up first ends it."""

    trials: Count = 30
    hours: Annotated[float, Field(gt=0)] | None = None  # on the clock, since this launch or resume
    device_hours: Annotated[float, Field(gt=0)] | None = None  # of all workers: GPUs, or CPUs without one
    disk_gb: Annotated[float, Field(gt=0)] | None = None  # 10^9 bytes, of the run's files


class Confirm(Spec):
    """The end of a study: retrain on the full training set with several seeds, and open the test set once."""

    leaders: Count = 1
    controls: tuple[Literal["ce", "kd"], ...] = ("ce", "kd")
    seeds: Count = 3
    workers: Count = 1


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Study(Spec):
    """What is searched, how, and with what: a study file.

    Its `recipe` at the recipe's own values is the paper's point, the first trial; `space` opens, narrows or
    fixes fields of the recipe.
    """

    name: Name
    recipe: Recipe
    space: Annotated[dict[str, Any], Field(default_factory=dict)]
    search: Search = Search()
    constraints: Constraints | None = None
    budget: Budget = Budget()
    cluster: Cluster = Cluster()
    confirm: Confirm | None = Confirm()
    enqueue: tuple[dict[str, bool | int | float | str], ...] = ()  # points to try after the paper's
    # an earlier run of the same method whose trials the search begins with: a path or URI
    warm_start: AbsolutePath | None = None
    keep: Count = 3  # the students of so many best trials stay on disk

    @model_validator(mode="after")
    def _check_space(self) -> Self:
        if lines := build_search_space(self.recipe.method.name, self.space)[1] or self._find_point_errors():
            raise ValueError("\n".join(lines))
        return self

    @model_validator(mode="after")
    def _check_students(self) -> Self:
        space = self.search_space()
        if "student/net" in space and self.recipe.student.weights is not None:
            raise ValueError("space/student/net: recipe/student/weights are of one net; begin at random")
        if self.constraints is not None:
            list_net_params(space)
        return self

    @model_validator(mode="after")
    def _check_batch_shares(self) -> Self:
        for place, workers in self.worker_counts().items():
            try:
                self.recipe.check_batch_size(workers)
            except ValueError as error:
                raise ValueError(f"{place} = {workers}: recipe/{error}") from None
            if workers > 1 and isinstance(self.cluster.gpus, float) and 0 < self.cluster.gpus < 1:
                raise ValueError(
                    f"cluster/gpus = {self.cluster.gpus:g}: each of {workers} workers ({place}) needs "
                    "whole GPUs: NCCL refuses two on one"
                )
        place, workers = list(self.worker_counts().items())[-1]  # these train the teachers
        for number, teacher in enumerate(self.recipe.list_teachers()):
            path = "teacher" if self.recipe.teacher else f"teachers/{number}"
            try:
                if teacher.train is not None:
                    teacher.train.check_batch_size(workers)
            except ValueError as error:
                raise ValueError(f"{place} = {workers}: recipe/{path}/train/{error}") from None
        return self

    def worker_counts(self) -> dict[str, int]:
        """Returns the numbers of workers that share a batch: of the search, and of the confirmation if any.

        A teacher is trained by as many as the last of them.
        """
        fewest, most = self.cluster.workers.min, self.cluster.workers.max
        counts = {"cluster/workers": most}
        if fewest < most:
            counts = {"cluster/workers/min": fewest, "cluster/workers/max": most}
        return counts | ({"confirm/workers": self.confirm.workers} if self.confirm else {})

    def count_trials(self) -> int:
        """Returns how many trials there are to run: the budget's, fewer where the space has fewer points."""
        points = count_points(self.search_space())
        return self.budget.trials if points is None else min(points, self.budget.trials)

    def describe_shortage(self) -> str:
        """Returns in words that the space has fewer points than the budget has trials; "" when it has not."""
        count = self.count_trials()
        if count == self.budget.trials:
            return ""
        return f"the space holds {count} points, fewer than budget/trials = {self.budget.trials}: each once"

    @staticmethod
    def read(path: str | Path, overrides: tuple[str, ...] = ()) -> "Study":
        """Reads a study file.

        Args:
            path: A YAML file; it may be a pipe.
            overrides: path=value, as for --set.

        Raises:
            UserError: Every mistake in it, a line each.
        """
        return Study.parse(read_settings(path, overrides, Study.model_fields), str(path))

    @staticmethod
    def parse(plain: dict[str, Any], where: str) -> "Study":
        """Returns plain settings as a study. UserError with every mistake, each line begun by `where`."""
        lines: list[str] = []
        try:
            name = plain["recipe"]["method"]["name"]
            lines = [f"{where}: {line}" for line in build_search_space(name, plain.get("space") or {})[1]]
        except (KeyError, TypeError, ValueError):
            pass  # the method itself is wrong, which the check below says
        try:
            return validate(Study, plain, where)
        except UserError as error:
            other = [
                line for line in error.lines if not any(known.split(": ", 1)[1] in line for known in lines)
            ]
            raise UserError(other + lines) from None

    def with_enqueued(self, recipes: Sequence[Recipe], warm_start: str | None) -> "Study":
        """Returns the study with recipes to try after the paper's point, and an earlier run to begin with."""
        enqueue = [*self.enqueue, *(self.get_point(recipe) for recipe in recipes)]
        plain = self.to_dict() | {"enqueue": enqueue, "warm_start": warm_start or self.warm_start}
        return Study.parse(plain, "--enqueue")

    def with_recipe(self, recipe: Recipe) -> "Study":
        """Returns the study with another recipe."""
        return self.model_copy(update={"recipe": recipe})

    def with_resources(self, cpus: float, gpus: float) -> "Study":
        """Returns the study with these CPUs and GPUs of a worker."""
        cluster = self.cluster.model_copy(update={"cpus": cpus, "gpus": gpus})
        return self.model_copy(update={"cluster": cluster})

    def with_trials(self, trials: int) -> "Study":
        """Returns the study with a budget of so many trials."""
        return self.model_copy(update={"budget": self.budget.model_copy(update={"trials": trials})})

    def to_dict(self) -> dict[str, Any]:
        """Returns the study as plain data (dict, list, str, numbers), for a file or another process."""
        data: dict[str, Any] = self.model_dump(mode="json")
        return data

    def search_space(self) -> dict[str, Dimension]:
        """Returns what is searched, by its path in the recipe, parents before what they make active."""
        return build_search_space(self.recipe.method.name, self.space)[0]

    def paper_point(self) -> dict[str, Scalar]:
        """Returns the recipe's own value of every searched field: the first trial."""
        return self.get_point(self.recipe)

    def get_point(self, recipe: Recipe) -> dict[str, Scalar]:
        """Returns a recipe's values of the searched fields."""
        plain = recipe.to_dict()
        point: dict[str, Scalar] = {}
        for path, dimension in self.search_space().items():
            if is_active(dimension, point):
                point[path] = get_value(plain, path)
        return point

    def recipe_with(self, params: dict[str, Scalar]) -> Recipe:
        """Returns the study's recipe with these parameter values, validated anew."""
        return Recipe.model_validate_json(json.dumps(apply_params(self.recipe.to_dict(), params)))

    def _find_point_errors(self) -> list[str]:
        """The paper's point and the study's enqueued points must lie in the space."""
        space, errors = self.search_space(), []
        for path, value in self.paper_point().items():
            if not space[path].contains(value):
                errors.append(
                    f"space/{path}: {space[path]} leaves out recipe/{path} = {value}, the first trial"
                )
        for place, point in enumerate(self.enqueue):
            for path, value in point.items():
                if path not in space:
                    errors.append(
                        f"enqueue/{place}/{shorten(path)}: not searched.{suggest_nearest(path, space)}"
                    )
                elif not space[path].contains(value):
                    errors.append(f"enqueue/{place}/{path} = {shorten(str(value))}: outside {space[path]}")
        return errors


def read_settings(path: str | Path, overrides: tuple[str, ...], fields: Iterable[str]) -> dict[str, Any]:
    """Returns a study file's plain settings with path=value put over them.

    A path that begins in the recipe needs no `recipe/`; one that begins nowhere is taken to begin at the
    nearest field of the recipe or of the file (`fields`).

    Raises:
        UserError: The file is no YAML of settings, or a path leads nowhere.
    """
    plain = read_yaml(Path(path))
    names = [item.split("/")[0].split("=")[0] for item in overrides]
    nearest = [find_nearest(name, [*Recipe.model_fields, *fields]) for name in names]
    in_recipe = [name in Recipe.model_fields for name in nearest]
    override(plain, tuple(f"recipe/{o}" if r else o for o, r in zip(overrides, in_recipe, strict=True)))
    return plain
