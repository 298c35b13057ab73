"""A study file of several methods: a study of each, and every mistake in a line of its own."""

from pathlib import Path

import pytest

from raykd.errors import UserError
from raykd.planning.plan import PlanOptions, make_plan
from raykd.study.comparison import Comparison, read_study

STUDIES = Path(__file__).parents[2] / "studies"
PLAIN = """
name: two
methods: [pckd, dcd]
recipe:
  data: {name: digits}
  teacher: {net: resnet20, train: {epochs: 2}}
  student: {net: resnet8}
  epochs: 3
space: {optimizer/lr: {low: 0.01, high: 0.2, log: true}}
per_method:
  pckd: {recipe: {data: {rotations: 4}, method: {temperature: 2.0}}, space: {method/temperature: fixed}}
budget: {trials: 7, device_hours: 2}
"""


def read(tmp_path: Path, *overrides: str, text: str = PLAIN) -> Comparison:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    comparison = read_study(path, overrides)
    assert isinstance(comparison, Comparison)
    return comparison


def test_each_method_has_a_study_of_its_own_and_the_controls_are_methods(tmp_path: Path) -> None:
    comparison = read(tmp_path)
    studies = comparison.studies()
    assert list(studies) == ["ce", "kd", "pckd", "dcd"]
    for method, study in studies.items():
        assert study.name == f"two-{method}" and study.recipe.method.name == method
        assert study.confirm is not None and study.confirm.controls == ()
        assert study.budget == comparison.budget and study.search == comparison.search
        assert study.recipe.teacher == studies["ce"].recipe.teacher
        assert study.recipe.data.rotations == (4 if method == "pckd" else 1)
        assert "optimizer/lr" in study.search_space()
    assert "method/temperature" in studies["kd"].search_space()
    assert "method/temperature" not in studies["pckd"].search_space()
    assert studies["pckd"].recipe.method.model_dump()["temperature"] == 2.0
    assert list(read(tmp_path, "confirm=null").studies()) == ["pckd", "dcd"]
    assert Comparison.parse(comparison.to_dict(), "again") == comparison
    changed = read(tmp_path, "epochs=5", "per_method/dcd/space/method/dim=fixed").studies()
    assert changed["kd"].recipe.epochs == 5 and "method/dim" not in changed["dcd"].search_space()


def test_paths_are_absolute_as_soon_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nets = "teacher={net: resnet20, weights: t.pth}", "student/weights=s.pth"
    comparison = read(tmp_path, *nets, "data/rotations=4")
    monkeypatch.chdir("/")
    studies = Comparison.parse(comparison.to_dict(), "again").studies().values()
    assert {study.recipe.teacher.weights for study in studies if study.recipe.teacher} == {
        f"{tmp_path}/t.pth"
    }
    assert {study.recipe.student.weights for study in studies} == {f"{tmp_path}/s.pth"}
    assert {study.recipe.data.rotations for study in studies} == {4}


OWN = "the same for all methods; one may have its own method, plus_kd, optimizer"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("methods=[pckd, dcdd]", "methods/1 = dcdd: no such method. Did you mean 'dcd'?"),
        ("methods=[dcd, pckd, dcd]", "methods/2 = dcd: stands there twice"),
        ("methods=[]", "methods = []: "),
        ("methods=dcd", 'methods = "dcd": should be a valid array'),
        ("method/name=kd", "recipe/method: `methods` names the methods; what one has of its own"),
        ("space/method/dim=open", "space/method/dim: a field of one method: say it in per_method/NAME/space"),
        (
            "per_method/dcdd/space/method/dim=open",
            "per_method/dcdd: is none of the methods (pckd, dcd, ce, kd). Did you mean 'dcd'?",
        ),
        (
            "per_method/dcd/space/method/teperature=open",
            "dcd: space/method/teperature: declares no range.",
        ),
        (
            "per_method/dcd/recipe/method/dimm=3",
            "dcd: recipe/method/dimm: no such field. Did you mean 'dim'?",
        ),
        ("per_method/dcd/recipe/method/name=kd", "per_method/dcd/recipe/method/name: is dcd already"),
        ("per_method/dcd/recipe/data/holdout=0.3", f"per_method/dcd/recipe/data/holdout: {OWN}"),
        ("per_method/dcd/recipe/seed=3", f"per_method/dcd/recipe/seed: {OWN}"),
        ("per_method/dcd/recipee=3", "per_method/dcd/recipee: no such field."),
        ("epochs=0", "recipe/epochs = 0: should be greater than or equal to 1"),  # of all: said once
        ("budget/trials=0", "budget/trials = 0: should be greater than or equal to 1"),
        ("warm_start=runs/x", "warm_start: no such field."),
        ("plus_kd/weight=1", "kd: recipe: plus_kd adds KD to another method"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, override)
    (line,) = caught.value.lines
    assert line.startswith(f"{tmp_path}/study.yaml: {expected}"), line


@pytest.mark.slow
def test_the_comparison_study_plans_without_data(tmp_path: Path) -> None:
    comparison = read_study(STUDIES / "comparison.yaml")
    assert isinstance(comparison, Comparison)
    plans = {
        name: make_plan(one, PlanOptions(tmp_path, images_per_second=1000))
        for name, one in comparison.studies().items()
    }
    assert list(plans) == ["ce", "kd", "dkd", "crd", "dcd", "pckd", "wcord", "msdcrd", "mcld"]
    assert all(plan.search_seconds and plan.device_hours == 4 for plan in plans.values())
    assert list(plans["ce"].space) == ["optimizer/lr", "optimizer/weight_decay"]
