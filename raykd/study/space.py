"""A study's `space` opens, narrows and closes what its method declares; points are drawn from it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raykd import methods
from raykd.errors import nearest
from raykd.spec import Choice, Dimension, Range, Scalar, called_for, declared
from raykd.study.recipe import Recipe


def draw(space: dict[str, Dimension], choose: Callable[[str, Dimension], Scalar]) -> dict[str, Scalar]:
    """A point of a space; `choose` answers for one dimension. Parts not called for are left out."""
    point: dict[str, Scalar] = {}
    for path, dimension in space.items():
        if called_for(dimension, point):
            point[path] = choose(path, dimension)
    return point


def value_at(plain: dict[str, Any], path: str) -> Any:
    node: Any = plain
    for part in path.split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def opened(method: str, entries: dict[str, Any]) -> tuple[dict[str, Dimension], list[str]]:
    """The method's own ranges, changed by the entries of a study's `space`; and the mistakes in those."""
    if not isinstance(entries, dict):
        return {}, ["space: should be a map from paths to ranges"]
    own = declared(methods.config(method), "method/")
    known = {p: d for p, d in declared(Recipe).items() if not p.startswith("method/")} | own
    space, mistakes = dict(own), []
    for path, entry in entries.items():
        if path not in known and not isinstance(entry, dict):
            mistakes.append(f"space/{path}: declares no range.{nearest(path, known)}")
        elif path not in known and not _is_field(method, path):
            mistakes.append(f"space/{path}: no such field in the recipe.{nearest(path, known)}")
        elif entry == "fixed":
            space.pop(path, None)
        elif entry == "open":
            space[path] = known[path]
        else:
            try:
                space[path] = _dimension(entry, known.get(path))
            except ValueError as error:
                mistakes.extend(f"space/{path}: {line}" for line in str(error).splitlines())
    for path in [p for p, d in space.items() if any(parent not in space for parent, _ in d.when)]:
        space[path] = replace(space[path], when=())
    return space, mistakes


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
