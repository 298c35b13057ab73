"""The verbs as a user calls them, each in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from raykd.methods._catalogue import list_methods

RECIPE: dict[str, Any] = {
    "data": {"name": "digits", "images": 200, "holdout": 0.2},
    "teacher": {"net": "resnet8", "train": {"epochs": 1, "optimizer": {"batch_size": 32}}},
    "student": {"net": "resnet8"},
    "method": {"name": "kd"},
    "epochs": 2,
    "optimizer": {"batch_size": 32},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    YAML().dump(RECIPE, path)
    return path


HELP = """
import sys
from raykd.cli import main
sys.argv = ["raykd", "--help"]
try:
    main()
finally:
    slow = {"matplotlib", "optuna", "pyarrow", "ray", "sklearn", "torch"}
    print("loaded:", *slow.intersection(sys.modules))
"""


def test_help_is_quick_and_lists_the_verbs() -> None:
    """It loads nothing that takes seconds."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded:\n"), done.stdout
    for verb in ("plan", "launch", "resume", "status", "report", "confirm", "export", "train", "methods"):
        assert verb in done.stdout


def test_bad_input_is_one_line_a_mistake_and_exit_2(verb: Any, small: Path, tmp_path: Path) -> None:
    done = verb("launch", str(small), "--set", "method/nmae=dcd", "--set", "budget/trials=0")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 2, done.stderr
    assert "Did you mean 'name'?" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
    for words in (
        ("status", "nowhere"),
        ("report", "nowhere"),
        ("export", "nowhere", "out"),
        ("resume", "nowhere"),
    ):
        done = verb(*words)
        assert (done.returncode, done.stderr) == (
            2,
            f"{tmp_path}/nowhere: no run here (a run holds study.yaml)\n",
        )
    done = verb("launch", str(small), "--set", "data={name: cifar100}", "--data", str(tmp_path))
    assert done.returncode == 2 and "no such file" in done.stderr and not (tmp_path / "runs").exists()
    done = verb("methods", "dcdd")
    assert done.returncode == 2 and "Did you mean 'dcd'?" in done.stderr


def test_plan_and_methods(verb: Any, small: Path) -> None:
    done = verb("plan", str(small), "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert "optimizer/lr" in plan["space"] and plan["trials"] == 3 and plan["trial_seconds"] > 0
    assert plan["resources"].startswith("a trial takes 1 CPU")
    methods = json.loads(verb("methods", "--json").stdout)
    assert {"ce", "kd", "dkd", "crd", "dcd"} <= {row["name"] for row in methods}
    assert "arXiv:2407.11802" in verb("methods", "dcd").stdout


@pytest.mark.slow
def test_train_without_ray_resumes_nothing_and_says_the_accuracy(
    verb: Any, recipe: Path, tmp_path: Path
) -> None:
    done = verb("train", str(recipe), "--out", "é und so", "--test")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "é und so/epochs.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2] and "test_accuracy" in rows[-1]
    assert f"test {rows[-1]['test_accuracy']:.2f} %" in done.stdout
    assert (tmp_path / "é und so/student.safetensors").exists()
    assert list((tmp_path / "runs/teachers").glob("resnet8-*.safetensors"))

    before = {path: path.read_bytes() for path in (tmp_path / "é und so").iterdir()}
    again = verb("train", str(recipe), "--out", "é und so")
    assert again.returncode == 0 and "trained before, nothing to do" in again.stdout
    assert rows[-1]["test_accuracy"] == pytest.approx(
        float(re.findall(r"test (\S+) %", again.stdout)[0]), abs=0.01
    )
    other = verb("train", str(recipe), "--out", "é und so", "--set", "epochs=3")
    assert other.returncode == 2 and "recipe.yaml: another recipe than this" in other.stderr
    exported = tmp_path / "exported"
    exported.mkdir()
    for name in ("recipe.yaml", "student.safetensors"):
        (exported / name).write_bytes(before[tmp_path / "é und so" / name])
    foreign = verb("train", str(recipe), "--out", "exported")
    assert foreign.returncode == 2 and "holds a student that was not trained here" in foreign.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "é und so").iterdir()} == before
    (tmp_path / "é und so/epochs.json").write_text(
        json.dumps([{k: v for k, v in rows[-1].items() if "test" not in k}])
    )
    untested = verb("train", str(recipe), "--out", "é und so", "--test")
    assert untested.returncode == 2 and "trained before, without --test" in untested.stderr


def test_a_list_in_a_pipe_has_a_line_a_method(verb: Any) -> None:
    lines = [line.split("\t") for line in verb("methods").stdout.splitlines()]
    assert [(line[0], line[-1]) for line in lines[1:]] == [
        (row["name"], row["paper"]) for row in list_methods()
    ]


@pytest.mark.slow
def test_a_study_may_come_through_a_pipe(small: Path) -> None:
    command = '"$0" -m raykd plan <(cat "$1") --json --images-per-second 1000'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, small], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and json.loads(done.stdout)["trials"] == 3, done.stderr


@pytest.mark.slow
def test_train_through_ray_gives_the_same_numbers(
    verb: Any, recipe: Path, tmp_path: Path, ray_session: str
) -> None:
    alone = verb("train", str(recipe), "--out", "alone")
    one = verb("train", str(recipe), "--out", "one", "--workers", "1")
    two = verb("train", str(recipe), "--out", "two", "--workers", "2")
    assert (alone.returncode, one.returncode, two.returncode) == (0, 0, 0), one.stderr + two.stderr

    def rows(name: str) -> list[dict[str, Any]]:
        kept = ("epoch", "accuracy", "accuracy_raw", "lr", "terms")
        return [
            {k: row[k] for k in kept} for row in json.loads((tmp_path / name / "epochs.json").read_text())
        ]

    assert rows("alone") == rows("one")
    assert rows("two")[-1]["terms"]["kd"] == pytest.approx(rows("one")[-1]["terms"]["kd"], rel=0.3)
    assert verb("train", str(recipe), "--workers", "3").returncode == 2
