"""Paths as users write them: absolute once read; `~`, variables and empty values alike everywhere."""

import json
from pathlib import Path

import pytest

from raykd.data import default_root
from raykd.driver.job import make_trial_job
from raykd.driver.train_one import read_recipe
from raykd.errors import UserError
from raykd.paths import get_default_folder, resolve, resolve_database
from raykd.study.study import Study
from raykd.training.trial import Job

STUDY = """
name: small
recipe:
  data: {name: folder, path: d}
  teacher: {net: resnet14, weights: t.pth}
  student: {net: resnet8, weights: s.pth}
  method: {name: kd}
search: {storage: "sqlite:///s.db"}
warm_start: r
"""
FIELDS = (
    "recipe/data/path",
    "recipe/teacher/weights",
    "search/storage",
    "warm_start",
    "recipe/student/weights",
)


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "/place")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)


def read(tmp_path: Path, *values: str) -> Study:
    (tmp_path / "study.yaml").write_text(STUDY)
    settings = zip(FIELDS, values, strict=False)
    return Study.read(
        tmp_path / "study.yaml", tuple(f"{path}={json.dumps(value)}" for path, value in settings)
    )


def test_a_study_holds_absolute_paths_wherever_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = read(tmp_path)
    assert study.recipe.teacher is not None
    assert study.recipe.teacher.weights == str(tmp_path / "t.pth") and study.warm_start == str(tmp_path / "r")
    assert study.search.storage == f"sqlite:///{tmp_path}/s.db"
    assert study.recipe.student.weights == str(tmp_path / "s.pth")
    monkeypatch.chdir("/")
    assert Study.parse(study.to_dict(), "again") == study


def test_home_and_variables_are_replaced_everywhere(tmp_path: Path) -> None:
    study = read(tmp_path, "~/d", "~/t.pth", "sqlite:///~/s.db", "${PLACE}/r")
    assert study.recipe.teacher is not None
    assert study.to_dict()["recipe"]["data"]["path"] == "/home/me/d"
    assert study.recipe.teacher.weights == "/home/me/t.pth" and study.warm_start == "/place/r"
    assert study.search.storage == "sqlite:////home/me/s.db"
    assert resolve("s3://bucket$PLACE") == "s3://bucket/place" and resolve("a$1b") == f"{Path.cwd()}/a$1b"


@pytest.mark.parametrize("field", range(len(FIELDS)))
@pytest.mark.parametrize(
    ("value", "expected"),
    [("", "is empty"), ("$UNSET/x", "$UNSET is not set"), ("${EMPTY}/x", "${EMPTY} is not set")],
)
def test_empty_values_and_unset_variables_are_refused_in_one_line(
    tmp_path: Path, field: int, value: str, expected: str
) -> None:
    values = ["d", "t.pth", "sqlite:///s.db", "r", "s.pth"]
    with pytest.raises(UserError) as error:
        read(tmp_path, *values[:field], value, *values[field + 1 :])
    (line,) = error.value.lines
    assert FIELDS[field] in line and expected in line


def test_a_variable_brings_no_password_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    for function in (resolve, resolve_database):
        with pytest.raises(ValueError, match="holds a password"):
            function("postgresql://me:$SECRET@host/db")


def test_databases_that_are_no_files_stay_as_they_are() -> None:
    for url in ("sqlite:///:memory:", "sqlite:////place/s.db?timeout=3", "postgresql://host/db"):
        assert resolve_database(url) == url


def test_a_recipes_paths_are_absolute_too(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "{data: {name: digits}, teacher: {net: resnet8, weights: t.pth}, "
        "student: {net: resnet8, weights: s.pth}, method: {name: kd}}"
    )
    recipe = read_recipe(path)
    assert recipe.teacher is not None and recipe.teacher.weights == str(tmp_path / "t.pth")
    assert recipe.student.weights == str(tmp_path / "s.pth")


def test_without_a_home_the_default_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.delenv("RAYKD_DATA", raising=False)
    with pytest.raises(
        UserError, match=r"^\$RAYKD_DATA: there is no home folder for its ~; set it to a folder$"
    ):
        default_root()
    monkeypatch.setenv("RAYKD_DATA", "here")
    assert default_root() == Path.cwd() / "here"
    assert get_default_folder("PLACE", "x") == Path("/place")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("plan", "study.yaml", "--storage", ""), "--storage: should be a path or a URI, and is empty"),
        (("plan", "study.yaml", "--data", "$UNSET/x"), "--data: $UNSET is not set"),
        (("plan", "$UNSET.yaml"), "study: $UNSET is not set"),
        (("doctor", "$UNSET.yaml"), "study: $UNSET is not set"),
        (("launch", "study.yaml", "--storage", "$UNSET"), "--storage: $UNSET is not set"),
        (("launch", "study.yaml", "--enqueue", "$UNSET"), "--enqueue: $UNSET is not set"),
        (("launch", "study.yaml", "--warm-start", "$UNSET"), "--warm-start: $UNSET is not set"),
        (("status", "$UNSET"), "run: $UNSET is not set"),
        (("resume", "$UNSET"), "run: $UNSET is not set"),
        (("report", "a", "$UNSET"), "runs: $UNSET is not set"),
        (("report", "a", "--out", "$UNSET"), "--out: $UNSET is not set"),
        (("export", "a", "$UNSET"), "out: $UNSET is not set"),
        (("train", "a", "--out", "$UNSET"), "--out: $UNSET is not set"),
        (("train", "$UNSET"), "recipe: $UNSET is not set"),
        (("transfer", "$UNSET", "--to", "digits"), "student: $UNSET is not set"),
        (("transfer", "a", "--to", "$UNSET"), "--to: $UNSET is not set"),
        (("transfer", "a", "--to", "digits", "--teacher", "$UNSET"), "--teacher: $UNSET is not set"),
        (("data", "show", "$UNSET"), "path: $UNSET is not set"),
        (("data", "shard", "$UNSET", "b"), "source: $UNSET is not set"),
        (("data", "shard", "a", "$UNSET"), "out: $UNSET is not set"),
        (("status", "~/nowhere"), "/home/me/nowhere: no run here (a run holds study.yaml)"),
    ],
)
def test_every_verb_treats_them_alike(verb, words: tuple[str, ...], line: str) -> None:
    done = verb(*words)
    assert (done.returncode, done.stderr) == (2, f"{line}\n")


def test_a_relative_cache_folder_is_absolute_in_every_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has another current folder."""
    study = read(tmp_path).with_resources(1.0, 0.0)

    def make_job() -> Job:
        return make_trial_job((), tmp_path, False, study, study.recipe, str(tmp_path))

    monkeypatch.setenv("RAYKD_CACHE", "here/cache")
    assert make_job().cache == str(tmp_path / "here/cache")
    monkeypatch.setenv("RAYKD_CACHE", "")
    assert make_job().cache == ""
    monkeypatch.setenv("RAYKD_CACHE", "$UNSET/cache")
    with pytest.raises(UserError, match=r"^\$RAYKD_CACHE: \$UNSET is not set; set it to a folder$"):
        make_job()
