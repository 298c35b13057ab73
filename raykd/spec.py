"""The words of a search space: Spec, a frozen record of settings; Range and Choice, what a setting may be
drawn from.

A knob is declared once, on one line of a Spec: type, law, search range and the paper's value.

    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0

Its path in the recipe ("method/temperature") is its name everywhere. A field that is a discriminated union
of Specs is a conditional sub-space: the union's tag becomes a Choice, and the fields of an arm carry
`when`, the tag that calls for them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

Scalar = bool | int | float | str
When = tuple[tuple[str, Scalar], ...]  # (path, value) pairs that must all hold


class Spec(BaseModel):
    """Frozen settings; an unknown key or a wrong type is an error, never skipped or converted."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; `log` draws the exponent evenly, `step` keeps to low + k *
    step.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False  # set from the field's type
    when: When = ()

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, but got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low > 0, but got low={self.low}")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range takes no step")

    def holds(self, value: object) -> bool:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high
        )

    def __str__(self) -> str:
        kind = " log" if self.log else (f" step {self.step:g}" if self.step else "")
        return f"{self.low:g} .. {self.high:g}{kind}"


@dataclass(frozen=True)
class Choice:
    """One of the values."""

    values: tuple[Scalar, ...]
    when: When = ()

    def __post_init__(self) -> None:
        if not self.values or len(set(map(repr, self.values))) != len(self.values):
            raise ValueError(f"a choice needs distinct values, but got {list(self.values)}")

    def holds(self, value: object) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self.values)) + "}"


Dimension = Range | Choice


def declared(spec: type[Spec], prefix: str = "", when: When = ()) -> dict[str, Dimension]:
    """Every range that a Spec declares, nested Specs included: {path: Range | Choice}, parents before
    children.
    """
    space: dict[str, Dimension] = {}
    for name, field in spec.model_fields.items():
        path = f"{prefix}{name}"
        for item in field.metadata:
            if isinstance(item, Range):
                space[path] = replace(item, integer=field.annotation is int, when=when)
            elif isinstance(item, Choice):
                space[path] = replace(item, when=when)
        arms = list(_specs(field.annotation))
        if field.discriminator is not None:
            tag = f"{path}/{field.discriminator}"
            tags = {_tag(arm, str(field.discriminator)): arm for arm in arms}
            space[tag] = Choice(tuple(tags), when=when)
            for value, arm in tags.items():
                space |= declared(arm, f"{path}/", (*when, (tag, value)))
        elif len(arms) == 1:
            space |= declared(arms[0], f"{path}/", when)
    return space


def _specs(annotation: Any) -> Iterator[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    elif get_origin(annotation) is Annotated or get_origin(annotation) in (Union, type(int | str)):
        for part in get_args(annotation):
            yield from _specs(part)


def _tag(arm: type[Spec], discriminator: str) -> str:
    field: FieldInfo = arm.model_fields[discriminator]
    return str(get_args(field.annotation)[0])


def called_for(dimension: Dimension, drawn: dict[str, Scalar]) -> bool:
    """Whether a conditional dimension applies, given what was drawn before it."""
    return all(drawn.get(path) == value for path, value in dimension.when)


def apply(base: dict[str, Any], drawn: dict[str, Scalar]) -> dict[str, Any]:
    """A plain recipe with the drawn values put in at their paths; where a union's tag changes, its other
    fields go.
    """
    result = dict(base)
    for path, value in drawn.items():
        *parents, last = path.split("/")
        node = result
        for parent in parents:
            node[parent] = dict(node.get(parent) or {})
            node = node[parent]
        if last == "kind" and node.get(last) != value:
            node.clear()
        node[last] = value
    return result
