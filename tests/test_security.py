"""What is promised of credentials, hashes and pinned dependencies. (Who listens where: test_cluster.py.)"""

import hashlib
import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from raykd import models
from raykd.errors import UserError, mask_passwords
from raykd.store.folder import Folder
from raykd.study.recipe import TeacherSpec
from raykd.training.start import make_started

ROOT = Path(__file__).parents[1]
SECRET = "hunter2"


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        (f"search/storage=postgresql://me:{SECRET}@host/db", "search/storage"),
        (f"warm_start=s3://key:{SECRET}@bucket/runs/first", "warm_start"),
        (f"teacher/weights=https://me:{SECRET}@host/teacher.pth", "recipe/teacher/weights"),
    ],
)
def test_no_address_with_a_password_gets_into_a_run(verb: Any, small: Path, setting: str, place: str) -> None:
    done = verb("plan", str(small), "--set", setting)
    assert done.returncode == 2 and f"{place} = " in done.stderr and "holds a password" in done.stderr
    assert SECRET not in done.stderr + done.stdout and "***@" in done.stderr


def test_a_storage_with_a_password_is_refused_without_repeating_it(verb: Any) -> None:
    done = verb("status", f"s3://key:{SECRET}@bucket/runs/small")
    assert done.returncode == 2 and "run: holds a password" in done.stderr and SECRET not in done.stderr
    assert mask_passwords("http://host:8265/a@b") == "http://host:8265/a@b"
    with pytest.raises(UserError, match="holds a password"):
        Folder(f"s3://key:{SECRET}@bucket")


def test_a_checkpoint_of_another_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pth"
    torch.save(models.make("resnet8", 10).state_dict(), path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    make_started(TeacherSpec(net="resnet8", weights=str(path), sha256=right), 10)
    with pytest.raises(UserError, match=f"its SHA-256 is {right}, expected 0000"):
        make_started(TeacherSpec(net="resnet8", weights=str(path), sha256="0" * 64), 10)


def test_a_checkpoint_from_a_url_needs_its_hash(verb: Any, small: Path) -> None:
    done = verb("plan", str(small), "--set", "teacher/weights=https://host/teacher.pth")
    assert done.returncode == 2 and "recipe/teacher: weights from a URL need their sha256" in done.stderr


def read_pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)]
    assert not wrong, f"not exactly pinned, or with an address: {wrong}"
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(name): version for name, version in pairs}


def test_all_that_is_asked_for_is_pinned_and_within_its_bounds() -> None:
    pins = read_pins()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [
        Requirement(text) for texts in (project["dependencies"], *extras.values()) for text in texts
    ]
    missing = []
    for requirement in (
        one for one in requirements if one.name != "raykd"
    ):  # an extra may name another extra
        version = pins.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{requirement} (pinned: {version})")
    assert not missing


def test_what_the_pinned_packages_need_is_pinned_too() -> None:
    pins = read_pins()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    open_ = [Requirement(text) for text in project["dependencies"]]
    seen, missing = set(), set()
    while open_:
        requirement = open_.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        if name not in pins:
            missing.add(name)
            continue
        try:
            here = distribution(name)
        except PackageNotFoundError:
            continue  # of another platform
        if here.version != pins[name]:
            continue  # what the pinned one needs cannot be known here
        for need in map(Requirement, here.requires or []):
            extras = requirement.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                open_.append(need)
    assert not missing


def test_a_damaged_teacher_is_refused_before_anything_is_begun(
    verb: Any, small: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "teacher.pth"
    damaged.write_bytes(b"no checkpoint")
    done = verb("launch", str(small), "--set", f"teacher/weights={damaged}", "--set", "teacher/train=null")
    assert done.returncode == 2 and f"{damaged}: is text, not weights" in done.stderr
    assert not (tmp_path / "runs").exists()
