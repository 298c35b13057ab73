"""A Comparison: one study of several methods, each searched under the same conditions and the same budget.

It is a Study of each method: whatever holds for a study (its files, its search, its confirmation) holds for
each of them, and what they have in common stands in the file once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from raykd import methods
from raykd.errors import UserError, shorten, suggest_nearest, validate
from raykd.spec import Count, Spec
from raykd.study.cluster import Cluster
from raykd.study.constraints import Constraints
from raykd.study.recipe import Recipe
from raykd.study.search import Search
from raykd.study.study import Budget, Confirm, Name, Study, read_settings

# What a method may have of its own in the recipe; all else is the same for all methods.
OWN_SETTINGS = (
    "method", "plus_kd", "optimizer", "schedule", "ema_decay", "batch_norm", "data/rotations",
)  # fmt: skip


class PerMethod(Spec):
    """In what one method differs from the comparison's `recipe` and `space`."""

    recipe: Annotated[dict[str, Any], Field(default_factory=dict)]
    space: Annotated[dict[str, Any], Field(default_factory=dict)]


class Comparison(Spec):
    """Several methods under one budget each: a study file that has `methods`.

    The data, the split, the teacher, the seeds and the settings of the search are those of all. The controls
    of `confirm` are methods like the others: they are searched, too.
    """

    name: Name
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    recipe: dict[str, Any]  # a study's, without its `method`
    space: Annotated[dict[str, Any], Field(default_factory=dict)]  # fields beside the methods' own
    per_method: Annotated[dict[str, PerMethod], Field(default_factory=dict)]
    share: bool = True  # whether methods try what others have learnt of the fields that they share
    search: Search = Search()
    constraints: Constraints | None = None
    budget: Budget = Budget()  # of each method
    cluster: Cluster = Cluster()
    confirm: Confirm | None = Confirm()
    keep: Count = 3

    @staticmethod
    def parse(plain: dict[str, Any], where: str) -> "Comparison":
        """Returns plain settings as a comparison. UserError with every mistake, begun by `where`."""
        lines = [f"{where}: {line}" for line in _find_method_mistakes(plain)]
        try:
            comparison = validate(Comparison, plain, where)
            studies = {} if lines else comparison.studies(where)
        except UserError as error:
            lines += error.lines
        if lines:
            raise UserError(lines)
        return comparison._with_absolute_paths(next(iter(studies.values())))

    def _with_absolute_paths(self, study: Study) -> "Comparison":
        """The comparison with the data and the nets as one of its studies has them."""
        checked = study.recipe.to_dict()
        common = {
            key: checked[key]
            for key in ("data", "student", "peers", "teacher", "teachers")
            if key in self.recipe
        }
        common["data"] |= {"rotations": self.recipe["data"].get("rotations", 1)}
        return self.model_copy(update={"recipe": self.recipe | common})

    def list_methods(self) -> tuple[str, ...]:
        """Returns the names of all methods, the controls first."""
        controls = self.confirm.controls if self.confirm else ()
        return tuple(dict.fromkeys((*controls, *self.methods)))

    def studies(self, where: str = "study") -> dict[str, Study]:
        """Returns the study of each method, by the method's name.

        Raises:
            UserError: Every mistake in them; what several have in common once.
        """
        studies, errors = {}, {}
        for method in self.list_methods():
            try:
                studies[method] = Study.parse(self._make_plain_study(method), "")
            except UserError as error:
                errors[method] = [line.removeprefix(": ") for line in error.lines]
        if errors:
            is_common = len(errors) == len(self.list_methods()) > 1
            lines = dict.fromkeys(
                line if is_common and all(line in other for other in errors.values()) else f"{name}: {line}"
                for name, own_lines in errors.items()
                for line in own_lines
            )
            raise UserError(f"{where}: {line}" for line in lines)
        return studies

    def with_enqueued(self, recipes: Sequence[Recipe], warm_start: str | None) -> "Comparison":
        """Returns the comparison itself. UserError where something should go before a method's own search."""
        options = {"--enqueue": recipes, "--warm-start": warm_start}
        if lines := [
            f"{name}: every method of a comparison begins at its paper's point"
            for name, value in options.items()
            if value
        ]:
            raise UserError(lines)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as plain data (dict, list, str, numbers), for a file."""
        data: dict[str, Any] = self.model_dump(mode="json")
        return data

    def _make_plain_study(self, method: str) -> dict[str, Any]:
        plain, own = self.to_dict(), self.per_method.get(method, PerMethod(recipe={}, space={}))
        confirm = plain["confirm"] and plain["confirm"] | {"controls": []}
        shared = {key: plain[key] for key in ("search", "constraints", "budget", "cluster", "keep")}
        return shared | {
            "name": f"{self.name}-{method}",
            "recipe": _merge(_merge(self.recipe, {"method": {"name": method}}), own.recipe),
            "space": self.space | own.space,
            "confirm": confirm,
        }


def read_study(path: str | Path, overrides: tuple[str, ...] = ()) -> Study | Comparison:
    """Reads a study file, of one method or of several.

    Args:
        path: A YAML file; it may be a pipe.
        overrides: path=value, as for --set.

    Raises:
        UserError: Every mistake in it, a line each.
    """
    fields = (*Study.model_fields, *Comparison.model_fields)
    return parse_study(read_settings(path, overrides, fields), str(path))


def list_studies(study: Study | Comparison) -> list[Study]:
    """Returns a study, or those of a comparison's methods."""
    return [study] if isinstance(study, Study) else list(study.studies().values())


def parse_study(plain: dict[str, Any], where: str) -> Study | Comparison:
    """Returns plain settings as a study of one method or of several. UserError as for `read_study`."""
    return Comparison.parse(plain, where) if "methods" in plain else Study.parse(plain, where)


def _merge(base: Any, changes: Any) -> Any:
    """Nested settings with others in them."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: _merge(base.get(key), value) for key, value in changes.items()}


def _find_method_mistakes(plain: dict[str, Any]) -> list[str]:
    """What is wrong with `methods`, and with what is said of single methods."""
    names = plain["methods"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return []  # which the validation says
    known, lines = methods.names(), []
    for place, name in enumerate(names):
        if name not in known:
            hint = suggest_nearest(name, known) or f" There are: {', '.join(known)}"
            lines.append(f"methods/{place} = {shorten(name)}: no such method.{hint}")
        elif name in names[:place]:
            lines.append(f"methods/{place} = {name}: stands there twice")
    if "method" in _as_dict(plain.get("recipe")):
        lines.append(
            "recipe/method: `methods` names the methods; what one has of its own stands in "
            "per_method/NAME/recipe/method"
        )
    for path in _as_dict(plain.get("space")):
        if path.startswith("method/"):
            lines.append(f"space/{shorten(path)}: a field of one method: say it in per_method/NAME/space")
    return lines + _find_own_mistakes(_as_dict(plain.get("per_method")), _list_names(plain, names))


def _list_names(plain: dict[str, Any], names: list[str]) -> list[str]:
    """The methods and the controls of a file that may be wrong elsewhere."""
    confirm = plain.get("confirm", {})
    controls = _as_dict(confirm).get("controls", list(Confirm().controls)) if confirm is not None else []
    return (
        [*names, *(name for name in controls if name not in names)] if isinstance(controls, list) else names
    )


def _find_own_mistakes(per_method: dict[str, Any], names: list[str]) -> list[str]:
    lines = []
    for name, own in per_method.items():
        if name not in names:
            lines.append(
                f"per_method/{shorten(name)}: is none of the methods ({', '.join(map(shorten, names))})."
                f"{suggest_nearest(name, names)}"
            )
        recipe = _as_dict(_as_dict(own).get("recipe"))
        paths = [path for key in recipe for path in _list_paths(key, recipe[key])]
        lines += [
            f"per_method/{shorten(name)}/recipe/{shorten(path)}: the same for all methods; one may have its "
            f"own {', '.join(OWN_SETTINGS)}"
            for path in paths
            if path not in OWN_SETTINGS and path.split("/")[0] in Recipe.model_fields
        ]
        if "name" in _as_dict(recipe.get("method")):
            lines.append(f"per_method/{shorten(name)}/recipe/method/name: is {shorten(name)} already")
    return lines


def _list_paths(key: str, value: Any) -> list[str]:
    """The paths of one entry that `OWN_SETTINGS` judges: of the data each setting, else the entry."""
    return [f"data/{name}" for name in value] if key == "data" and isinstance(value, dict) else [key]


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
