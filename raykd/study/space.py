"""The search space: the ranges that a method declares, opened, narrowed or fixed by a study's `space`."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raykd import methods
from raykd.errors import shorten, suggest_nearest
from raykd.spec import Choice, Dimension, Range, Scalar, collect_dimensions, is_active
from raykd.study.nets import Options
from raykd.study.recipe import Recipe


def draw(space: dict[str, Dimension], choose: Callable[[str, Dimension], Scalar]) -> dict[str, Scalar]:
    """Returns a point of a space; `choose` gives the value of one dimension. Inactive ones are left out."""
    point: dict[str, Scalar] = {}
    for path, dimension in space.items():
        if is_active(dimension, point):
            point[path] = choose(path, dimension)
    return point


def count_points(space: dict[str, Dimension]) -> int | None:
    """Returns how many different points a space holds; None where a field's values are not countable."""
    parents = {parent for dimension in space.values() for parent, _ in dimension.conditions}
    return _count_points(list(space.items()), parents, {})


def _count_points(
    dimensions: list[tuple[str, Dimension]], parents: set[str], params: dict[str, Scalar]
) -> int | None:
    """Of the dimensions that follow the params; those that others depend on are gone through one by one."""
    total = 1
    for place, (path, dimension) in enumerate(dimensions):
        if not is_active(dimension, params):
            continue
        if isinstance(dimension, Choice) and path in parents:
            rest = dimensions[place + 1 :]
            counts = [_count_points(rest, parents, params | {path: value}) for value in dimension.values]
            return None if None in counts else total * sum(count or 0 for count in counts)
        if (count := dimension.count_values()) is None:
            return None
        total *= count
    return total


def build_search_space(method: str, entries: dict[str, Any]) -> tuple[dict[str, Dimension], list[str]]:
    """Returns a method's own ranges, changed by a study's `space`; and the mistakes in that, a line each."""
    if not isinstance(entries, dict):
        return {}, ["space: should be a map from paths to ranges"]
    method_ranges = collect_dimensions(methods.get_config_class(method), "method/")
    own = {p: d for p, d in collect_dimensions(Recipe).items() if not p.startswith("method/")}
    known = {**own, **method_ranges}
    space, errors = dict(method_ranges), []
    for path, entry in entries.items():
        place = f"space/{shorten(path)}"
        if path not in known and not isinstance(entry, dict):
            errors.append(f"{place}: declares no range.{suggest_nearest(path, known)}")
        elif path not in known and not _is_field(method, path):
            errors.append(f"{place}: no such field in the recipe.{suggest_nearest(path, known)}")
        elif entry == "fixed":
            space.pop(path, None)
        elif entry == "open":
            space[path] = known[path]
        else:
            try:
                space[path] = _parse_dimension(entry, known.get(path))
            except ValueError as error:
                errors.extend(f"{place}: {line}" for line in str(error).splitlines())
    for path in [p for p, d in space.items() if any(parent not in space for parent, _ in d.conditions)]:
        conditions = tuple(c for c in space[path].conditions if c[0] in space)
        space[path] = replace(space[path], conditions=conditions)
    return space, errors


def _is_field(method: str, path: str) -> bool:
    schema: Any = Recipe
    for part in path.split("/"):
        if schema == Options:
            return True  # the net says whether it is one
        if not hasattr(schema, "model_fields") or part not in schema.model_fields:
            return False
        schema = (
            methods.get_config_class(method)
            if schema is Recipe and part == "method"
            else schema.model_fields[part].annotation
        )
    return True


def _parse_dimension(entry: Any, known: Dimension | None) -> Dimension:
    """An entry of `space`: open | fixed | {low, high, log, step} | {choices: [...]}."""
    conditions = known.conditions if known else ()
    if not isinstance(entry, dict):
        raise ValueError(
            f"= {shorten(json.dumps(entry))}: should be open, fixed, {{low, high, log, step}} or {{choices}}"
        )
    if set(entry) == {"choices"} and isinstance(entry["choices"], list):
        return Choice(tuple(entry["choices"]), conditions)
    if unknown := set(entry) - {"low", "high", "log", "step", "choices"}:
        word = sorted(unknown)[0]
        hint = suggest_nearest(word, ["low", "high", "log", "step", "choices"])
        raise ValueError(f"{shorten(word)}: no such field.{hint}")
    if not {"low", "high"} <= set(entry):
        raise ValueError("a range needs low and high")
    if "choices" in entry:
        raise ValueError("a range has no choices: should be {low, high, log, step} or {choices: [...]}")
    for word in {"low", "high", "step"} & set(entry):
        if isinstance(entry[word], bool) or not isinstance(entry[word], int | float):
            raise ValueError(f"{word} = {shorten(json.dumps(entry[word]))}: should be a number")
    if not isinstance(entry.get("log", False), bool):
        raise ValueError(f"log = {shorten(json.dumps(entry['log']))}: should be true or false")
    integer = known.integer if isinstance(known, Range) else isinstance(entry["low"], int) and "step" in entry
    return Range(**entry, integer=integer, conditions=conditions)
