"""Several teachers as one: mean logits, a cache each, which methods they serve, weights as fields."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_trainer import CPU, recipe

from raykd import data
from raykd.errors import UserError
from raykd.models import make
from raykd.planning.plan import PlanOptions, make_plan
from raykd.spec import apply_params, get_value
from raykd.study import space_check
from raykd.study.study import Study
from raykd.teachers.ensemble import EnsembleNet, average_logits
from raykd.training import trial
from raykd.training.start import make_started

DATA: dict[str, Any] = {"name": "digits", "images": 64, "holdout": 0.0}


@pytest.fixture
def several(tmp_path: Path) -> list[dict[str, Any]]:
    """Two untrained teachers; the second counts three times the first."""
    for seed, net in enumerate(("resnet8", "resnet14")):
        torch.manual_seed(seed)
        torch.save(make(net, 10).state_dict(), tmp_path / f"{net}.pth")
    nets = [{"net": net, "weights": str(tmp_path / f"{net}.pth")} for net in ("resnet8", "resnet14")]
    return [nets[0], nets[1] | {"weight": 3.0}]


def make_study(several: list[dict[str, Any]], **settings: Any) -> Study:
    plain = recipe().to_dict() | {
        "teacher": None,
        "teachers": several,
        "method": {"name": "kd"},
        "data": DATA,
    }
    return Study.parse({"name": "s", "recipe": plain | settings}, "study.yaml")


def run_trial(folder: Path, study: Study, **job: Any) -> dict[str, Any]:
    settings = study.recipe.with_settings({"epochs": 1})
    teachers = tuple(str(teacher.weights) for teacher in settings.list_teachers())
    rows: list[dict[str, Any]] = []
    plain = trial.Job(settings.to_dict(), str(folder), teachers, "unused", False, 1, **job)
    trial.run(plain, rows.append, CPU)
    return rows[-1]


@pytest.mark.slow
def test_the_logits_are_the_weighted_mean_and_each_teacher_has_its_cache(
    tmp_path: Path, several: list[dict[str, Any]]
) -> None:
    study, cache = make_study(several), str(tmp_path / "cache")
    live, first, again = (
        run_trial(tmp_path / name, study, **job)
        for name, job in (
            ("live", {"teacher_cache_gib": 0.0}), ("first", {"cache": cache}), ("again", {"cache": cache})
        )
    )  # fmt: skip
    assert len([*(tmp_path / "cache/teachers").glob("*.cache")]) == 2
    assert (first["teacher_hits"], first["teacher_misses"]) == (0, 128) and again["teacher_misses"] == 0
    assert first["terms"] == again["terms"] and first["terms"]["kd"] == pytest.approx(
        live["terms"]["kd"], rel=2e-3
    )
    one = run_trial(tmp_path / "one", make_study(several[:1]), cache=cache)
    assert one["teacher_misses"] == 0 and one["terms"]["kd"] != again["terms"]["kd"]


def test_for_the_analysis_they_are_one_net(several: list[dict[str, Any]]) -> None:
    nets = [make_started(teacher, 10).eval() for teacher in make_study(several).recipe.teachers]
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        outputs, alone = EnsembleNet(nets, [1.0, 3.0])(images), [net(images) for net in nets]
    torch.testing.assert_close(outputs.logits, (alone[0].logits + 3 * alone[1].logits) / 4)
    assert torch.equal(outputs.embedding, torch.cat([each.embedding for each in alone], dim=1))


def test_the_mean_is_by_weight() -> None:
    one, two = torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 2.0]])
    torch.testing.assert_close(average_logits([one, two], [1.0, 3.0]), torch.tensor([[4.0, 1.5]]))
    torch.testing.assert_close(average_logits([one, two], [10.0, 10.0]), (one + two) / 2)


@pytest.mark.parametrize("method", ["kd", "dkd", "dist", "ckd", "mcld", "ce"])
def test_methods_that_read_logits_alone_are_served(several: list[dict[str, Any]], method: str) -> None:
    study = make_study(several, method={"name": method}, optimizer={"batch_size": 32})
    info = data.load(study.recipe.data, Path("unused"), False).info
    assert space_check.check(study, info) >= 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"method": {"name": "crd"}},
            "method 'crd' reads embedding of its teacher; several serve methods that",
        ),
        ({"method": {"name": "simkd"}}, "method 'simkd' reads head, pooled of its teacher"),
        ({"teacher": {"net": "resnet8", "weights": "t.pth"}}, "say either teacher (one) or teachers"),
        (
            {"teachers": [{"net": "resnet8", "weights": "t.pth", "weight": 0.0}]},
            "recipe/teachers/0/weight = 0.0",
        ),
        ({"teachers": []}, "needs a teacher"),
    ],
)
def test_what_they_cannot_serve_is_one_line(
    several: list[dict[str, Any]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        make_study(several, **settings)
    (line,) = error.value.lines
    assert message in line


def test_their_weights_are_searched(several: list[dict[str, Any]]) -> None:
    plain = make_study(several).to_dict() | {"space": {"teachers/1/weight": "open"}}
    study = Study.parse(plain, "study.yaml")
    assert str(study.search_space()["teachers/1/weight"]) == "0.1 .. 10 log"
    assert study.paper_point()["teachers/1/weight"] == 3.0
    drawn = study.recipe_with({"teachers/1/weight": 0.5})
    assert [t.weight for t in drawn.teachers] == [1.0, 0.5] and study.recipe.teachers[1].weight == 3.0
    with pytest.raises(UserError, match="leaves out recipe/teachers/2/weight = None"):
        Study.parse(plain | {"space": {"teachers/2/weight": "open"}}, "study.yaml")


def test_paths_lead_through_lists_and_leave_the_base_alone() -> None:
    base = {"teachers": [{"weight": 1.0}, {"weight": 2.0}]}
    assert apply_params(base, {"teachers/1/weight": 5.0})["teachers"] == [{"weight": 1.0}, {"weight": 5.0}]
    assert get_value(base, "teachers/1/weight") == 2.0 and get_value(base, "teachers/2/weight") is None
    assert get_value(base, "teachers/first/weight") is None


def test_a_teacher_of_other_classes_is_one_line(tmp_path: Path, several: list[dict[str, Any]]) -> None:
    torch.save(make("resnet14", 100).state_dict(), tmp_path / "resnet14.pth")
    with pytest.raises(UserError) as error:
        make_plan(make_study(several), PlanOptions(tmp_path))
    (line,) = error.value.lines
    assert line.startswith("teacher resnet14: ") and "100 classes, the data has 10" in line
