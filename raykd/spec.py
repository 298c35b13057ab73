"""The types of a search space: Spec, a frozen record of settings, and the Range or Choice of a setting.

A knob is declared once, on one line of a Spec: type, law, search range and the paper's value.

    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0

Its path in the recipe ("method/temperature") is its name everywhere. A field that is a discriminated union
of Specs is a conditional sub-space: the union's tag becomes a Choice, and the fields of an arm carry
`conditions`, the tag under which they are active.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import MaxLen
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

Scalar = bool | int | float | str
Count = Annotated[int, Field(ge=1)]
Conditions = tuple[tuple[str, Scalar], ...]  # (path, value) pairs that must all hold
MAX_BOUND = 2**53  # a float holds every integer up to here
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy, Optuna and torch all take


class Spec(BaseModel):
    """Frozen settings; an unknown key or a wrong type is an error, never skipped or converted."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )


class ByTag:
    """Validates a field against the Spec that its tag calls for, of those there are when it is validated.

    Not a union, whose arms are those of the import: plugins add to them, and only the arm that is called for
    is loaded.
    """

    def __init__(
        self, tag: str, names: Callable[[], Collection[str]], get_spec: Callable[[str], type[Spec]]
    ) -> None:
        self._tag, self._names, self._get_spec = tag, names, get_spec

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __getitem__(self, name: str) -> type[Spec]:
        return self._get_spec(name)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validate)

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict | Spec):
            raise PydanticKnownError("model_attributes_type")
        name = value.get(self._tag) if isinstance(value, dict) else getattr(value, self._tag, None)
        if name is None:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": f"'{self._tag}'"})
        if name not in self:
            expected = ", ".join(f"'{one}'" for one in self._names())
            context = {"discriminator": f"'{self._tag}'", "tag": str(name), "expected_tags": expected}
            raise PydanticKnownError("union_tag_invalid", context)
        adapter = _make_arm(self._tag, name, self[name])
        if info.mode == "json" and isinstance(value, dict):  # there a tuple is a list
            return adapter.validate_json(json.dumps(value))
        return adapter.validate_python(value)


@dataclass(frozen=True)
class _Arm:
    """A tagged union of one arm: the paths of its errors have the tag, as a union's."""

    tag: str
    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.tagged_union_schema({self.name: handler(source)}, discriminator=self.tag)


@lru_cache(maxsize=128)
def _make_arm(tag: str, name: str, spec: type[Spec]) -> TypeAdapter[Any]:
    arm: Any = Annotated[spec, _Arm(tag, name)]
    return TypeAdapter(arm)


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included.

    `log` draws the exponent evenly, `step` keeps to low + k * step. ValueError when they make no range.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False  # set from the field's type
    conditions: Conditions = ()

    def __post_init__(self) -> None:
        numbers = {"low": self.low, "high": self.high} | ({} if self.step is None else {"step": self.step})
        for name, number in numbers.items():
            if not math.isfinite(number) or abs(number) > MAX_BOUND:
                raise ValueError(f"{name} must be finite and at most 2^53, but got {number:g}")
            if self.integer and number != int(number):
                raise ValueError(f"{name} of an integer field must be whole, but got {number:g}")
        if self.low >= self.high:
            raise ValueError(f"low must be below high, but got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low > 0, but got low={self.low}")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range takes no step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step must be above 0 and at most high - low, but got step={self.step:g}")

    def contains(self, value: object) -> bool:
        """Returns whether a value lies between low and high; whether it lies on a step is not asked."""
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high
        )

    def count_values(self) -> int | None:
        """Returns how many values there are to draw; None where they are not countable."""
        if self.step is None and not self.integer:
            return None
        return math.floor((self.high - self.low) / (self.step or 1) + 1e-9) + 1

    def __str__(self) -> str:
        suffix = " log" if self.log else (f" step {self.step:g}" if self.step else "")
        return f"{self.low:g} .. {self.high:g}{suffix}"


@dataclass(frozen=True)
class Choice:
    """One of the values."""

    values: tuple[Scalar, ...]
    conditions: Conditions = ()

    def __post_init__(self) -> None:
        if not all(
            isinstance(v, str | int) or (isinstance(v, float) and math.isfinite(v)) for v in self.values
        ):
            raise ValueError("a choice needs words, finite numbers, true or false")
        if not self.values or len(set(self.values)) != len(self.values):
            raise ValueError("a choice needs distinct values, and at least one")

    def contains(self, value: object) -> bool:
        """Returns whether a value is one of the choice's."""
        return value in self.values

    def count_values(self) -> int:
        """Returns how many values there are to draw."""
        return len(self.values)

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self.values)) + "}"


Dimension = Range | Choice


@lru_cache(maxsize=1024)
def collect_dimensions(
    spec: type[Spec], prefix: str = "", conditions: Conditions = ()
) -> Mapping[str, Dimension]:
    """Returns every dimension that a Spec declares, nested Specs included, parents before children.

    Kept for each class: the mapping is the callers' to read alone.

    Args:
        spec: The class.
        prefix: In front of each path, with its "/".
        conditions: Under which the Spec itself is active.
    """
    space: dict[str, Dimension] = {}
    for name, field in spec.model_fields.items():
        path = f"{prefix}{name}"
        for item in field.metadata:
            if isinstance(item, Range):
                space[path] = replace(item, integer=field.annotation is int, conditions=conditions)
            elif isinstance(item, Choice):
                space[path] = replace(item, conditions=conditions)
        arms = list(_iterate_specs(field.annotation))
        if get_origin(field.annotation) is tuple:
            for number in range(_get_max_length(field) if arms else 0):
                space |= collect_dimensions(arms[0], f"{path}/{number}/", conditions)
            continue
        if field.discriminator is not None:
            tag = f"{path}/{field.discriminator}"
            tags = {_get_tag(arm, str(field.discriminator)): arm for arm in arms}
            space[tag] = Choice(tuple(tags), conditions=conditions)
            for value, arm in tags.items():
                space |= collect_dimensions(arm, f"{path}/", (*conditions, (tag, value)))
        elif len(arms) == 1:
            space |= collect_dimensions(arms[0], f"{path}/", conditions)
    return space


def _iterate_specs(annotation: Any) -> Iterator[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, type(int | str), tuple):
        for part in get_args(annotation):
            yield from _iterate_specs(part)


def _get_max_length(field: FieldInfo) -> int:
    return next(item.max_length for item in field.metadata if isinstance(item, MaxLen))


def _get_tag(arm: type[Spec], discriminator: str) -> str:
    field: FieldInfo = arm.model_fields[discriminator]
    return str(get_args(field.annotation)[0])


def is_active(dimension: Dimension, params: dict[str, Scalar]) -> bool:
    """Returns whether a conditional dimension applies, given the params suggested before it."""
    return all(params.get(path) == value for path, value in dimension.conditions)


def get_value(plain: Any, path: str) -> Any:
    """Returns the value at a path ("method/temperature") of plain settings; None where there is none."""
    for part in path.split("/"):
        if isinstance(plain, list):
            plain = dict(enumerate(plain)).get(int(part)) if part.isdecimal() else None
        else:
            plain = plain.get(part) if isinstance(plain, dict) else None
    return plain


def apply_params(base: dict[str, Any], params: dict[str, Scalar]) -> dict[str, Any]:
    """Returns a plain recipe with the params at their paths.

    Where a union's tag ("kind") changes, the other fields beside it go.
    """
    result: Any = dict(base)
    for path, value in params.items():
        *parents, last = path.split("/")
        node = result
        for parent in parents:
            key: Any = int(parent) if isinstance(node, list) else parent
            child = node[key] if isinstance(node, list) else node.get(key)
            node[key] = list(child) if isinstance(child, list) else dict(child or {})
            node = node[key]
        if last == "kind" and node.get(last) != value:
            node.clear()
        node[last] = value
    plain: dict[str, Any] = result
    return plain
