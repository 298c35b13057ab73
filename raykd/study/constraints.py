"""What a student may cost: the `constraints` of a study, which are Optuna's constraints of its trials.

All follow from the net alone: a student that breaks one is known before it is trained.
"""

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field

from raykd.spec import Choice, Dimension, Scalar, Spec

NET_FIELDS = ("student/net", "student/options/")


class Limit(Spec):
    """The most of something."""

    max: Annotated[float, Field(gt=0)]


class LatencyLimit(Limit):
    """Of the ONNX program on a machine's CPUs, measured there before the search begins."""

    batch: Literal[1, 64] = 1  # at which it holds; both are measured
    machine: str | None = None  # host name; elsewhere the study is not begun. None: wherever it is begun


class Constraints(Spec):
    """What the student may cost as it is deployed. Those that cost more are not trained.

    The paper's point and enqueued ones are trained in any case, to compare, and are never the best.
    """

    parameters: Limit | None = None
    macs: Limit | None = None  # multiply-accumulate operations of an image
    onnx_mb: Limit | None = None  # 10^6 bytes of student.onnx
    latency_ms: LatencyLimit | None = None  # milliseconds of a batch

    @property
    def need_program(self) -> bool:
        """Whether a net must be exported to tell."""
        return self.onnx_mb is not None or self.latency_ms is not None

    def find_excess(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Returns by how much costs are above each limit; below it, negative."""
        limits = {"parameters": self.parameters, "macs": self.macs, "onnx_mb": self.onnx_mb}
        if self.latency_ms is not None:
            limits[f"latency_ms_{self.latency_ms.batch}"] = self.latency_ms
        return {name: costs[name] - limit.max for name, limit in limits.items() if limit is not None}


def list_net_params(space: Mapping[str, Dimension]) -> list[dict[str, Scalar]]:
    """Returns every student net of a space, as the params that make it; one without any: the recipe's own.

    Raises:
        ValueError: One of them is a range, of which not every value can be measured.
    """
    fields = {path: dimension for path, dimension in space.items() if path.startswith(NET_FIELDS)}
    for path, dimension in fields.items():
        if not isinstance(dimension, Choice):
            raise ValueError(f"space/{path}: with constraints a choice ({{choices: [...]}}), not a range")
    values = [dimension.values for dimension in fields.values() if isinstance(dimension, Choice)]
    return [dict(zip(fields, one, strict=True)) for one in product(*values)]


def find_student(students: list[dict[str, Any]], params: Mapping[str, Scalar]) -> dict[str, Any] | None:
    """Returns the row of a point's student, of those of `measure_students`; None without constraints."""
    return next((student for student in students if student["params"].items() <= params.items()), None)


def get_excess(students: list[dict[str, Any]], params: Mapping[str, Scalar]) -> dict[str, float]:
    """Returns by how much a point's student is over each constraint, as Optuna wants it."""
    student = find_student(students, params)
    return student["excess"] if student else {}


def format_excess(student: Mapping[str, Any] | None) -> str:
    """Returns in words what a student breaks; "" for one within the constraints."""
    if student is None:
        return ""
    costs = student["costs"]
    return ", ".join(
        f"{name} {costs[name]:,.6g} is above {costs[name] - excess:,.6g}"
        for name, excess in student["excess"].items()
        if excess > 0
    )


def describe_students(students: list[dict[str, Any]]) -> dict[str, str]:
    """Returns {which student: its costs in words, and what it breaks}."""
    return {_name(student): describe_student(student) for student in students}


def describe_student(student: Mapping[str, Any]) -> str:
    """Returns a student's costs in words, where they were measured, and what it breaks."""
    costs = student["costs"]
    words = [
        f"{costs['parameters']:,} parameters",
        f"{costs['macs'] / 1e6:,.4g} M MACs an image",
    ]
    if "machine" in costs:
        latency = " and ".join(f"{costs[f'latency_ms_{batch}']:.3g} ms for {batch}" for batch in (1, 64))
        words += [f"{costs['onnx_mb']:.3g} MB as ONNX", f"{latency} images on {costs['machine']}"]
    broken = format_excess(student)
    words.append(f"not within the constraints: {broken}" if broken else "within the constraints")
    return "; ".join(words)


def list_ruled_out(students: list[dict[str, Any]]) -> list[str]:
    """Returns a line for each student that is not within the constraints."""
    return [f"{_name(student)}: {broken}" for student in students if (broken := format_excess(student))]


def _name(student: Mapping[str, Any]) -> str:
    return " and ".join(f"{path} = {value}" for path, value in student["params"].items()) or "student"
