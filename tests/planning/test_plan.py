"""Plans: the model of scaling against a simulation, boundary points of spaces, disk and money."""

import heapq
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import fake_runs

from raykd.data import DatasetInfo, ViewIndex
from raykd.errors import UserError
from raykd.planning import cost
from raykd.planning.cache_forms import CacheFormPlan, RowSeconds, estimate_saving, list_forms
from raykd.planning.plan import PlanOptions, make_plan
from raykd.study import space_check
from raykd.study.comparison import list_studies, read_study
from raykd.study.study import Study
from raykd.study.study_files import list_study_files

STUDIES = Path(__file__).parents[2] / "studies"
IMAGENET = STUDIES / "imagenet/kd.yaml"
INFO = DatasetInfo(1000, 224, 1_255_544)
SPEED = 1000.0


def imagenet(*settings: str, name: str = "kd") -> Study:
    return Study.read(STUDIES / f"imagenet/{name}.yaml", ("optimizer/batch_size=256", *settings))


def estimate(study: Study, devices: int, price: float | None = None) -> cost.CostEstimate:
    cost_estimate = cost.estimate_cost(study, INFO, SPEED, price, devices)
    assert cost_estimate is not None
    return cost_estimate


def simulate(trials: int, seconds: float, lanes: int) -> float:
    """When the last of equal trials ends, each begun as soon as a lane is free."""
    ends = [0.0] * lanes
    for _ in range(trials):
        heapq.heappush(ends, heapq.heappop(ends) + seconds)
    return max(ends)


@pytest.mark.parametrize("devices", [1, 2, 4, 5, 10, 20, 64])
def test_devices_divide_the_search_up_to_the_number_of_trials(devices: int) -> None:
    study = imagenet("cluster/workers=1", "search/pruner={kind: none}")
    cost_estimate = estimate(study, devices)
    last = simulate(20, cost_estimate.trial_seconds, devices)
    assert cost_estimate.concurrent_trials == min(devices, 20)
    assert cost_estimate.search_seconds == pytest.approx(last) or devices == 64
    assert cost_estimate.search_seconds <= last * (1 + 1e-9)
    retrained = simulate(
        9 - 3, cost_estimate.confirm_seconds / -(-6 // max(1, devices // 4)), max(1, devices // 4)
    )
    assert devices < 4 or cost_estimate.confirm_seconds == pytest.approx(retrained)


def test_a_trial_takes_its_images_over_its_speed() -> None:
    one = estimate(imagenet("cluster/workers=1"), 1)
    assert one.trial_seconds == pytest.approx(100 * (1_255_544 // 256) * 256 / SPEED)
    parallel = estimate(imagenet(), 4)
    assert parallel.workers == 4 and parallel.trial_seconds == pytest.approx(
        one.trial_seconds / (4 * cost.PARALLEL_EFFICIENCY)
    )
    assert estimate(imagenet(), 1).trial_seconds == one.trial_seconds  # fewer devices: fewer workers
    turned = estimate(imagenet("data/rotations=4", "cluster/workers=1"), 1)
    assert turned.trial_seconds == pytest.approx(4 * one.trial_seconds)
    quarter = estimate(imagenet("cluster/gpus=0.25", "cluster/workers=1", "confirm/workers=1"), 1)
    assert quarter.concurrent_trials == 4 and quarter.trial_seconds == pytest.approx(4 * one.trial_seconds)
    assert quarter.search_seconds == pytest.approx(one.search_seconds)
    assert cost.estimate_cost(imagenet("cluster/gpus=0", "cluster/cpus=8"), INFO, SPEED, None, 1) is None


def test_dollars_are_device_hours_at_a_price() -> None:
    study = imagenet("cluster/workers=1", "confirm=null", "search/pruner={kind: none}")
    cost_estimate = estimate(study, 8, price=2.0)
    assert cost_estimate.device_hours == pytest.approx(20 * cost_estimate.trial_seconds / 3600)
    assert cost_estimate.dollars == 2 * cost_estimate.device_hours and estimate(study, 8).dollars is None


@pytest.mark.parametrize(("min_fraction", "eta"), [(1 / 9, 3), (0.25, 2), (1.0, 3)])
def test_the_pruners_saving_is_that_of_halving(min_fraction: float, eta: int) -> None:
    study = imagenet(f"search/pruner={{kind: halving, min_fraction: {min_fraction}, eta: {eta}}}")
    epochs, alive, spent, rung = 36, 144.0, 0.0, min_fraction * 36
    for epoch in range(1, epochs + 1):  # all trials together, epoch by epoch
        spent += alive
        if epoch == round(rung) and rung < epochs:
            alive, rung = alive / eta, rung * eta
    assert cost.estimate_kept_fraction(study) == pytest.approx(spent / (144 * epochs))
    assert cost.estimate_kept_fraction(imagenet("search/pruner={kind: none}")) == 1


def test_boundary_points_reach_every_arm_and_both_ends() -> None:
    study = imagenet(name="pckd")
    points = list(space_check.boundary_points(study))
    kinds = {point["method/preview/kind"] for _, _, point in points}
    assert kinds == {"growth", "curriculum", "linear", "cosine", "off"}
    for path, value, point in points:
        assert point[path] == value and study.recipe_with(point).method.name == "pckd"
    ends = {value for path, value, _ in points if path == "method/preview/cosine_end"}
    assert ends == {1.5, 4.0}


def test_a_draw_that_no_trial_could_begin_is_refused() -> None:
    def errors(name: str, *settings: str) -> list[str]:
        with pytest.raises(UserError) as error:
            space_check.check(
                Study.read(STUDIES / f"cifar100/{name}.yaml", settings), DatasetInfo(100, 32, 45_000)
            )
        return error.value.lines

    (line,) = errors("pckd-hetero", "space/method/weights/centre=open")
    assert line.startswith("space/method/weights/centre = 0.1, 1.0, 10.0: no trial could begin: pckd: class")
    (line,) = errors("kd", "space/optimizer/batch_size={choices: [64, 90000]}")
    assert "= 90000: no trial could begin: optimizer/batch_size = 90000 is more than the 45000" in line
    pairs = "space/optimizer/batch_size={choices: [64, 32]}"
    (line,) = errors("kd", pairs, "optimizer/accumulate=64")
    assert line.startswith(
        "space/optimizer/batch_size = 32: no trial could begin: optimizer/batch_size = 32 cannot"
    )
    (line,) = errors("kd", pairs, "confirm/workers=64")
    assert line.endswith("optimizer/batch_size = 32 cannot be shared evenly by 64 workers")
    (line,) = errors("kd", "space/optimizer/momentum={low: 0.5, high: 1.5}")
    assert "recipe: optimizer/momentum = 1.5: should be less than 1" in line


@pytest.mark.slow
def test_a_trial_could_begin_at_every_boundary_point_of_every_study() -> None:
    for path in list_study_files().values():
        for study in list_studies(read_study(path)):
            info = study.recipe.data.expected_info() or DatasetInfo(10, 64, 320)  # a folder's files say it
            assert space_check.check(study, info) >= len(study.search_space()), path


@pytest.mark.slow
def test_the_speed_of_cross_entropy_with_kd_is_measured_with_its_teacher(
    verb: Any, small: Path, tmp_path: Path
) -> None:
    """`plan` and the trial ask one condition: a method without a teacher, and plus_kd, which reads one."""
    words = ("--set", "method={name: ce}", "--set", "plus_kd={}", "--set", "space={}", "--json")
    done = verb("plan", str(small), *words)
    assert done.returncode == 0 and json.loads(done.stdout)["images_per_second"] > 0, done.stderr
    assert Study.read(small, ("method={name: ce}", "plus_kd={}")).recipe.needs_teacher
    assert not Study.read(small, ("method={name: ce}",)).recipe.needs_teacher


@pytest.mark.slow
def test_a_space_of_fewer_points_than_trials_is_said(verb: Any, small: Path) -> None:
    paths = Study.read(small).search_space()
    space = dict.fromkeys(paths, "fixed") | {"optimizer/nesterov": {"choices": [False, True]}}
    words = ("plan", str(small), "--set", f"space={json.dumps(space)}", "--set", "budget/trials=6")
    shortage = "the space holds 2 points, fewer than budget/trials = 6: each once"
    plan = json.loads(verb(*words, "--json").stdout)
    assert (plan["trials"], plan["shortage"]) == (2, shortage)
    assert plan["search_seconds"] == pytest.approx(2 * plan["trial_seconds"])
    assert f"2 of 3 epochs on 256 images ({shortage})" in verb(*words).stdout
    done = verb("launch", *words[1:], "--storage", str(small))  # a file: nothing begins
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, shortage)


def test_a_plan_for_gpus_without_one_says_that_nothing_was_measured(
    verb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = verb(
        "plan", str(STUDIES / "quickstart.yaml"), "--set", "cluster/gpus=0.25", "--set", "confirm/workers=1"
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "not measured: the study asks for a GPU, and torch can use none here" in said
    assert "trials that share a GPU take turns (no nvidia-cuda-mps-control on the PATH)" in said


@pytest.mark.slow
def test_the_verb_says_devices_money_and_disk(verb: Any, tmp_path: Path) -> None:
    command = (
        "plan",
        str(IMAGENET),
        "--set",
        "optimizer/batch_size=256",
        "--data",
        str(tmp_path),
        "--storage",
        str(tmp_path / "not/there"),
    )
    done = verb(*command, "--images-per-second", "1000", "--price", "2.5", "--json")
    plan = json.loads(done.stdout)
    assert [one["devices"] for one in plan["cost_estimates"]] == [1, 8, 64] and plan["device"] == "GPU"
    assert plan["cost_estimates"][0]["dollars"] == pytest.approx(
        2.5 * plan["cost_estimates"][0]["device_hours"]
    )
    assert plan["step_seconds"] == pytest.approx(0.256) and plan["speed_source"] == "given, not measured"
    assert plan["disk_free_bytes"] > 0 and plan["trial_disk_bytes"] == 3 * 4 * plan["student_parameters"]
    shown = verb(*command, "--images-per-second", "1000", "--price", "2.5").stdout
    assert "dollars" in shown and "On so many devices" in shown and "(assumed)" in shown
    both = verb(*command, "--images-per-second", "1000", "--probe", "auto")
    assert both.returncode == 2 and "give one of them" in both.stderr


@pytest.mark.usefixtures("no_ray_session")
def test_what_is_missing_here_is_said_as_by_launch(verb: Any, small: Path, tmp_path: Path) -> None:
    """Data, weights; a plan for other machines, whose speed is given, asks for neither."""
    for settings, mistake in (
        ({"data": {"name": "cifar10"}}, f"data: {tmp_path}/cifar-10-batches-py/data_batch_1: no such file"),
        ({"student/weights": "s.pth"}, f"student resnet8: {tmp_path}/s.pth: no such file"),
    ):
        words = [
            word for path, value in settings.items() for word in ("--set", f"{path}={json.dumps(value)}")
        ]
        for name in ("launch", "plan"):
            done = verb(name, str(small), *words, "--data", str(tmp_path))
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
            assert done.stderr.startswith(mistake) and not (tmp_path / "runs").exists()
        done = verb("plan", str(small), *words, "--data", str(tmp_path), "--images-per-second", "1000")
        assert done.returncode == 0, done.stderr


def test_five_classes_or_fewer_have_no_top_five(small: Path) -> None:
    study = Study.read(small, ("search/objectives=[top5]",))
    with pytest.raises(UserError) as error:
        space_check.check(study, DatasetInfo(5, 8, 256))
    assert error.value.lines == [
        "search/objectives = top5: always 100 % of 5 classes; take accuracy, balanced_accuracy, macro_f1"
    ]
    assert space_check.check(study, DatasetInfo(10, 8, 256))


def test_a_cache_saves_what_the_trials_do_not_pass_through_the_teacher() -> None:
    """Against a count of draws: every view is passed once, if it fits, and then read."""
    study = imagenet("data/views=4", "epochs=3", "search/pruner={kind: none}", "budget/trials=5")
    info, index = DatasetInfo(10, 8, 1000), ViewIndex("key", 4, 1200, torch.arange(1000))
    forward, row = 0.01, RowSeconds(0.002, 0.001)
    plan = CacheFormPlan("", 100, views=400)
    saving = estimate_saving(plan, study, info, index, forward, row)
    draws = torch.randint(4, (3, 1000), generator=torch.Generator().manual_seed(0))
    passes = sum(len(set(column.tolist())) for column in draws.T)
    assert saving.live_seconds == pytest.approx(5 * 3 * 1000 * forward)
    assert saving.cached_seconds == pytest.approx(passes * 0.012 + 15_000 * 0.001, rel=0.02)
    assert saving.pays_after_trials == pytest.approx(passes * 0.012 / (3000 * 0.009), rel=0.02)
    half = estimate_saving(replace(plan, views=2), study, info, index, forward, row)
    assert half.cached_seconds == pytest.approx((saving.cached_seconds + saving.live_seconds) / 2)
    slow = estimate_saving(plan, study, info, index, 0.0005, row)
    assert slow.pays_after_trials is None and slow.cached_seconds > slow.live_seconds


@pytest.mark.slow
def test_the_forms_of_a_cache_are_those_that_serve_the_method(verb: Any, small: Path) -> None:
    words = ("plan", str(small), "--set", "teacher/cache/embedding=int8")
    own, exact = json.loads(verb(*words, "--json").stdout)["cache_forms"]  # ten classes: no top ten of them
    assert (own["form"], own["view_bytes"]) == ("all logits, int8 embedding", 2 * 10 + 8 + 64 + 4)
    assert (exact["form"], exact["view_bytes"]) == ("all logits, float16 embedding", 2 * (10 + 64) + 4)
    assert own["views"] > exact["views"] and own["cached_seconds"] > 0 and exact["live_seconds"] > 0
    for name, number in (("kd", 5), ("dcd", 3), ("dist", 3), ("fitnet", 1)):
        recipe = Study.read(STUDIES / f"cifar100/{name}.yaml").recipe
        assert len(list_forms(recipe, DatasetInfo(100, 32, 1000))) == number, name


@pytest.mark.slow
def test_an_earlier_run_of_the_study_says_how_early_its_first_rung_may_be(tmp_path: Path) -> None:
    study = fake_runs.make_study("made", trials=16)
    unpruned = Study.parse(study.to_dict() | {"search": {"pruner": {"kind": "none"}}}, "made")
    options = PlanOptions(data_root=tmp_path, storage=str(tmp_path), images_per_second=1000)
    assert make_plan(study, options).first_rung == ""
    fake_runs.write_run(unpruned, tmp_path, confirmed=False)
    words = make_plan(study, options).first_rung
    assert words.startswith(f"by the curves of {tmp_path}/made: From epoch ") and "min_fraction" in words


@pytest.mark.slow
def test_what_only_some_plans_need_is_loaded_for_them_alone() -> None:
    """Of launch too: plots and models of a report, and the symbols of an exported program, take seconds."""
    slow = "matplotlib", "sklearn", "sympy", "torch.utils.flop_counter"
    code = (
        f"import sys, raykd.planning.plan, raykd.driver.launch; print(*{{*{slow}}}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
