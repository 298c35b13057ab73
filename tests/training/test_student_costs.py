"""What students cost, against figures by hand, and what a study that cannot be within it says."""

import platform
from pathlib import Path
from typing import Any

import pytest

from raykd.data import DatasetInfo
from raykd.errors import UserError
from raykd.study.study import Study
from raykd.training.student_costs import measure_students

INFO = DatasetInfo(10, 32, 256)


def test_parameters_and_macs_are_those_of_the_deployed_student(small: Path) -> None:
    """simkd deploys a projector and the teacher's classifier beside the student."""
    limits = "constraints={macs: {max: 2e7}, parameters: {max: 80000}}"
    (row,) = measure_students(Study.read(small, (limits,)), INFO, {})
    stem, stages = 3 * 16 * 9 * 32**2, 0
    for side, inputs, width in ((32, 16, 16), (16, 16, 32), (8, 32, 64)):
        shortcut = inputs * width if inputs != width else 0
        stages += side**2 * (9 * inputs * width + 9 * width**2 + shortcut)
    assert row["costs"] == {"parameters": 78_042, "macs": stem + stages + 64 * 10}
    assert row["excess"] == {"parameters": -1958, "macs": row["costs"]["macs"] - 2e7}
    with pytest.raises(UserError, match=r"^constraints: no student is within them: student: parameters"):
        measure_students(Study.read(small, (limits, "method={name: simkd}", "space={}")), INFO, {})


@pytest.mark.slow
def test_a_program_is_measured_once_for_all_methods(small: Path) -> None:
    settings = f"constraints={{latency_ms: {{max: 1e6, machine: {platform.node()}}}, onnx_mb: {{max: 0.5}}}}"
    known: dict[str, Any] = {}
    rows = [
        measure_students(Study.read(small, (settings, f"method={{name: {name}}}", "space={}")), INFO, known)
        for name in ("kd", "dcd")
    ]
    assert rows[0] == rows[1] and len(known) == 1
    costs = rows[0][0]["costs"]
    assert 4 * 78_042 / 1e6 < costs["onnx_mb"] < 0.5 and costs["machine"].startswith(platform.node())
    assert 0 < costs["latency_ms_1"] < costs["latency_ms_64"]
    assert rows[0][0]["excess"] == {
        "onnx_mb": costs["onnx_mb"] - 0.5, "latency_ms_1": costs["latency_ms_1"] - 1e6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (("constraints={macs: {max: 0}}",), "constraints/macs/max = 0: should be greater than 0"),
        (
            ("constraints={latency_ms: {max: 1, batch: 8}}",),
            "constraints/latency_ms/batch = 8: should be 1 or",
        ),
        (("constraints={parameter: {max: 1}}",), "constraints/parameter: no such field. Did you mean 'param"),
        (
            (
                "constraints={}",
                "student/options={drop: 0.5}",
                "space={student/options/drop: {low: 0, high: 1}}",
            ),
            "space/student/options/drop: with constraints a choice ({choices: [...]}), not a range",
        ),
        (
            ("student/weights=w.pth", "space={student/net: {choices: [resnet8, resnet14]}}"),
            "space/student/net: recipe/student/weights are of one net",
        ),
    ],
)
def test_what_no_study_can_mean_is_one_line(small: Path, settings: tuple[str, ...], line: str) -> None:
    with pytest.raises(UserError) as error:
        Study.read(small, settings)
    assert len(error.value.lines) == 1 and line in error.value.lines[0], error.value.lines


def test_a_latency_of_another_machine_is_not_measured_here(small: Path) -> None:
    study = Study.read(small, ("constraints={latency_ms: {max: 1, machine: phone}}",))
    with pytest.raises(UserError, match=r"^constraints/latency_ms/machine = phone: this is "):
        measure_students(study, INFO, {})
