"""A Study: what is searched, how, and with what. Reads YAML strictly, opens fields, draws recipes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from raykd import methods
from raykd.mistakes import BadInput, checked, nearest
from raykd.recipe import Recipe
from raykd.space import Choice, Dimension, Range, Scalar, Spec, apply, called_for, declared

Count = Annotated[int, Field(ge=1)]


class Budget(Spec):
    """What a study may spend; whichever is used up first ends it."""

    trials: Count = 30
    hours: Annotated[float, Field(gt=0)] | None = None


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


class Search(Spec):
    sampler: Sampler = TPE()
    pruner: Pruner = Halving()
    seed: Annotated[int, Field(ge=0)] = 0


class Cluster(Spec):
    """What a trial takes. Trials of one worker run in the Tune actor; of several, as a Ray Train job."""

    workers: Count = 1  # processes that share a trial's batches
    cpus: Annotated[float, Field(gt=0)] = 1.0  # per worker
    gpus: Annotated[float, Field(ge=0)] = 0.0  # per worker; a part of one GPU puts several trials on it
    always_train: bool = False  # Ray Train also for one worker
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
    keep: Count = 3  # the students of so many best trials stay on disk

    @model_validator(mode="after")
    def _space_opens(self) -> Self:
        if lines := _opened(self.recipe.method.name, self.space)[1] or self._paper_point_mistakes():
            raise ValueError("\n".join(lines))
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
            lines = [f"{where}: {line}" for line in _opened(name, plain.get("space") or {})[1]]
        except (KeyError, TypeError, ValueError):
            pass  # the method itself is wrong, which the check below says
        try:
            return checked(Study, plain, where)
        except BadInput as error:
            other = [line for line in error.lines if not any(own.split(": ", 1)[1] in line for own in lines)]
            raise BadInput(other + lines) from None

    def plain(self) -> dict[str, Any]:
        data: dict[str, Any] = self.model_dump(mode="json")
        return data

    def opened(self) -> dict[str, Dimension]:
        """What is searched: {path in the recipe: Range | Choice}, parents before the parts that they call
        for.
        """
        return _opened(self.recipe.method.name, self.space)[0]

    def paper_point(self) -> dict[str, Scalar]:
        """The recipe's own value of every opened field: the first trial."""
        plain = self.recipe.plain()
        point: dict[str, Scalar] = {}
        for path, dimension in self.opened().items():
            if called_for(dimension, point):
                point[path] = _value(plain, path)
        return point

    def drawn(self, values: dict[str, Scalar]) -> Recipe:
        """The study's recipe with drawn values, validated anew."""
        return Recipe.model_validate_json(json.dumps(apply(self.recipe.plain(), values)))

    def _paper_point_mistakes(self) -> list[str]:
        mistakes = []
        for path, value in self.paper_point().items():
            dimension = self.opened()[path]
            if not dimension.holds(value):
                path = path.strip("/")
                mistakes.append(
                    f"space/{path}: {dimension} leaves out recipe/{path} = {value}, the first trial"
                )
        return mistakes


def draw(space: dict[str, Dimension], choose: Callable[[str, Dimension], Scalar]) -> dict[str, Scalar]:
    """A point of a space; `choose` answers for one dimension. Parts not called for are left out."""
    point: dict[str, Scalar] = {}
    for path, dimension in space.items():
        if called_for(dimension, point):
            point[path] = choose(path, dimension)
    return point


def _value(plain: dict[str, Any], path: str) -> Any:
    node: Any = plain
    for part in path.split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _opened(method: str, entries: dict[str, Any]) -> tuple[dict[str, Dimension], list[str]]:
    """The method's own ranges, changed by the entries of a study's `space`; and the mistakes in those."""
    if not isinstance(entries, dict):
        return {}, ["space: should be a map from paths to ranges"]
    own = declared(methods.config(method), "method/")
    known = {p: d for p, d in declared(Recipe).items() if not p.startswith("method/")} | own
    opened, mistakes = dict(own), []
    for path, entry in entries.items():
        if path not in known and not isinstance(entry, dict):
            mistakes.append(f"space/{path}: declares no range.{nearest(path, known)}")
        elif path not in known and not _is_field(method, path):
            mistakes.append(f"space/{path}: no such field in the recipe.{nearest(path, known)}")
        elif entry == "fixed":
            opened.pop(path, None)
        elif entry == "open":
            opened[path] = known[path]
        else:
            try:
                opened[path] = _dimension(entry, known.get(path))
            except (ValueError, ValidationError) as error:
                mistakes.extend(f"space/{path}: {line}" for line in str(error).splitlines())
    for path in [p for p, d in opened.items() if any(parent not in opened for parent, _ in d.when)]:
        opened[path] = replace(opened[path], when=())
    return opened, mistakes


def _is_field(method: str, path: str) -> bool:
    schema: Any = Recipe
    for part in path.split("/"):
        if not hasattr(schema, "model_fields") or part not in schema.model_fields:
            return False
        schema = (
            methods.config(method)
            if schema is Recipe and part == "method"
            else schema.model_fields[part].annotation
        )
    return True


def _dimension(entry: Any, known: Dimension | None) -> Dimension:
    """An entry of `space`: open | fixed | {low, high, log, step} | {choices: [...]}."""
    when = known.when if known else ()
    if not isinstance(entry, dict):
        raise ValueError(
            f"= {json.dumps(entry)}: should be open, fixed, {{low, high, log, step}} or {{choices}}"
        )
    if set(entry) == {"choices"} and isinstance(entry["choices"], list):
        return Choice(tuple(entry["choices"]), when)
    if unknown := set(entry) - {"low", "high", "log", "step", "choices"}:
        word = sorted(unknown)[0]
        raise ValueError(f"{word}: no such field.{nearest(word, ['low', 'high', 'log', 'step', 'choices'])}")
    if not {"low", "high"} <= set(entry):
        raise ValueError("a range needs low and high")
    for word in {"low", "high", "step"} & set(entry):
        if isinstance(entry[word], bool) or not isinstance(entry[word], int | float):
            raise ValueError(f"{word} = {json.dumps(entry[word])}: should be a number")
    integer = known.integer if isinstance(known, Range) else isinstance(entry["low"], int) and "step" in entry
    return Range(**entry, integer=integer, when=when)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML map; nothing in it is executed. BadInput names a mistake's line, duplicate keys included."""
    if not path.is_file():
        raise BadInput([f"{path}: no such file"])
    try:
        plain = YAML(typ="safe", pure=True).load(path)
    except MarkedYAMLError as error:
        at = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = str(error.problem or error.context or "not YAML").splitlines()[0]
        raise BadInput([f"{path}:{at} {problem}"]) from None
    except UnicodeDecodeError:
        raise BadInput([f"{path}: not a text file"]) from None
    if not isinstance(plain, dict):
        raise BadInput([f"{path}: should hold a map of settings"])
    return plain


def write_yaml(plain: dict[str, Any], path: Path) -> None:
    yaml = YAML()
    yaml.default_flow_style = False
    with path.open("w") as file:
        yaml.dump(plain, file)


def override(plain: dict[str, Any], overrides: tuple[str, ...]) -> None:
    """Put path=value into plain settings; a value is read as YAML. Unknown paths are told by the check that
    follows.
    """
    for item in overrides:
        path, equals, text = item.partition("=")
        if not equals or not path:
            raise BadInput([f"--set {item}: should be path=value"])
        node: Any = plain
        *parents, last = path.split("/")
        if parents and parents[0] == "space":
            parents, last = ["space"], path.removeprefix("space/")
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[last] = YAML(typ="safe", pure=True).load(text)
