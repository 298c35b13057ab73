"""The study files that come with raykd, by name."""

from pathlib import Path
from typing import Any

import pytest

from raykd.driver.train_one import read_recipe
from raykd.errors import UserError
from raykd.study.study_files import find_file, get_title, list_recipe_files, list_study_files

STUDIES = Path(__file__).parents[2] / "studies"


def test_all_study_files_have_a_name_and_a_title() -> None:
    files = list_study_files()
    assert list(files)[:2] == ["comparison", "patient"] and {"cifar100/dcd", "imagenet/dcd"} <= set(files)
    recipes = set(STUDIES.glob("found/*.yaml"))
    assert {path.resolve() for path in files.values()} == set(STUDIES.rglob("*.yaml")) - recipes
    assert all(len(get_title(path)) > 20 and not get_title(path).startswith("#") for path in files.values())


def test_what_studies_have_found_is_a_recipe_that_train_accepts() -> None:
    files = list_recipe_files()
    assert all(len(get_title(path)) > 20 for path in files.values())
    recipes = [read_recipe(find_file(Path(name), files)) for name in files]
    assert "resnet20" in {recipe.student.net for recipe in recipes}  # the comparisons' teacher


def test_a_file_comes_before_a_name_and_a_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = list_study_files()
    (tmp_path / "quickstart").mkdir()
    for word in ("quickstart", "quickstart.yaml", "studies/quickstart.yaml"):
        assert find_file(Path(word), files).samefile(STUDIES / "quickstart.yaml")
    (tmp_path / "quickstart.yaml").touch()
    assert find_file(Path("quickstart.yaml"), files) == Path("quickstart.yaml")
    with pytest.raises(UserError, match="Did you mean 'quickstart'"):
        find_file(Path("quickstrat"), files)
    with pytest.raises(UserError, match="Did you mean 'cifar100/dcd' or 'imagenet/dcd'"):
        find_file(Path("dcd.yaml"), files)


def test_the_verb_lists_and_prints_them(verb: Any) -> None:
    lines = verb("studies").stdout.splitlines()
    assert len(lines) == 1 + len(list_study_files() | list_recipe_files())
    assert any(line.startswith("cifar100/dcd\t") and "wrn_40_2 -> wrn_16_2" in line for line in lines)
    assert verb("studies", "quickstart").stdout == (STUDIES / "quickstart.yaml").read_text()
    assert verb("studies", "quikstart").returncode == 2
    assert verb("studies", "found/cifar100-resnet20-teacher").stdout.startswith("# The teacher of ")
    misspelt = verb("train", "found/cifar100-resnet20-techer")
    assert misspelt.returncode == 2 and "Did you mean 'found/cifar100-resnet20-teacher'?" in misspelt.stderr
