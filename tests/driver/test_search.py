"""The searcher driven by hand: what Tune would call, without Tune; Optuna's real storage underneath."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from raykd.data import DatasetInfo
from raykd.driver.searcher import StudySearch
from raykd.driver.session import MAX_LOST_WORKERS
from raykd.errors import UserError
from raykd.store.run_files import RunFiles
from raykd.store.status import get_status, rank_trials
from raykd.study.study import Study
from raykd.study.yaml_file import read_yaml
from raykd.training.student_costs import measure_students

EPOCHS = 9
Open = Callable[..., StudySearch]


@pytest.fixture
def open_search(small: Path, tmp_path: Path) -> Open:
    """A searcher on the run `name`, for the small study with settings; a second one is of the same run."""

    def open_run(
        name: str = "run",
        trials: int = 12,
        hours: float | None = None,
        method: dict[str, Any] | None = None,
        space: dict[str, Any] | None = None,
        constraints: dict[str, Any] | None = None,
        **search: Any,
    ) -> StudySearch:
        plain = read_yaml(small)
        plain["recipe"] |= {"epochs": EPOCHS, "method": method or {"name": "dcd"}}
        plain["space"] |= space or {}
        plain["budget"] = {"trials": trials, "hours": hours}
        plain["constraints"] = constraints
        plain["search"] = {"pruner": {"kind": "halving", "min_fraction": 0.2, "eta": 2}} | search
        study, run_files = Study.parse(plain, "small"), RunFiles(str(tmp_path / name))
        run_files.begin(study.to_dict(), measure_students(study, DatasetInfo(10, 32, 256), {}))
        return StudySearch(study, run_files, lambda number, params: params, lambda: 2, ignore_update)

    return open_run


def ignore_update(row: dict[str, Any]) -> None:
    pass


def epoch_result(params: dict[str, Any], epoch: int) -> dict[str, Any]:
    """A learning curve that follows from the parameters."""
    best = 80 - 20 * abs(math.log(params.get("optimizer/lr", 0.05) / 0.05))
    best -= 5 * params.get("method/weights/contrast", 1.0)
    best -= 30 * (params.get("method/divergence/kind") == "kd")
    best += 20 * (params.get("student/net") == "resnet8")
    return {
        "epoch": epoch, "accuracy": best * (1 - 0.5**epoch), "final": epoch == EPOCHS,
        "seconds": 10 * params.get("optimizer/lr", 0.05), "parameters": 1000,
    }  # fmt: skip


def run_trial(searcher: StudySearch, name: str) -> bool:
    """One trial to its end or to the rung that stops it; whether there was one."""
    params = searcher.suggest(name)
    if not isinstance(params, dict):
        return False
    for epoch in range(1, EPOCHS + 1):
        result = epoch_result(params, epoch)
        if searcher.record_epoch(name, result):
            break
    searcher.on_trial_complete(name, result)
    return True


def test_several_objectives_are_recorded_and_the_accuracy_prunes(open_search: Open) -> None:
    searcher = open_search(objectives=["accuracy", "seconds_per_epoch", "parameters"])
    while run_trial(searcher, "t"):
        pass
    trials = searcher.optuna_study.get_trials()
    assert len(trials) == 12 and searcher.is_done()
    pruned = [t for t in trials if t.state == TrialState.PRUNED]
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert pruned and complete and len(pruned) + len(complete) == 12
    for trial in complete:
        row = searcher.rows[trial.number]
        assert trial.values == [row["accuracy"], row["seconds_per_epoch"], 1000]
        assert row["seconds_per_epoch"] == pytest.approx(10 * row["params"]["optimizer/lr"])
    for trial in pruned:
        assert sorted(trial.intermediate_values) == list(range(1, max(trial.intermediate_values) + 1))
        assert max(trial.intermediate_values) < EPOCHS
    assert searcher.optuna_study.metric_names == ["accuracy", "seconds_per_epoch", "parameters"]


def test_another_metric_judges_prunes_and_ranks(open_search: Open) -> None:
    """The accuracy here says the opposite of the metric."""
    searcher = open_search(objectives=["macro_f1", "parameters"])
    while isinstance(params := searcher.suggest("t"), dict):
        for epoch in range(1, EPOCHS + 1):
            result = epoch_result(params, epoch)
            result |= {"metric": "macro_f1", "macro_f1": result["accuracy"], "accuracy": -result["accuracy"]}
            if searcher.record_epoch("t", result):
                break
        searcher.on_trial_complete("t", result)
    trials, rows = searcher.optuna_study.get_trials(), searcher.run_files.trials()
    assert searcher.optuna_study.metric_names == ["macro_f1", "parameters"]
    assert [d.name for d in searcher.optuna_study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert any(trial.state == TrialState.PRUNED for trial in trials)
    complete = [row for row in rows if row["state"] == "COMPLETE"]
    assert [trials[row["number"]].values[0] for row in complete] == [row["macro_f1"] for row in complete]
    assert all(row["accuracy"] == -row["macro_f1"] for row in rows)
    best = max(complete, key=lambda row: row["macro_f1"])
    assert (
        get_status(searcher.run_files)["best"]["number"] == best["number"] == rank_trials(rows)[0]["number"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tpe", "gp", "nsga2", "qmc", "random"])
def test_every_sampler_of_several_objectives_searches_among_pruned_trials(
    open_search: Open, kind: str
) -> None:
    searcher = open_search(
        name=kind, trials=14, objectives=["accuracy", "seconds_per_epoch"], sampler={"kind": kind}
    )
    while run_trial(searcher, "t"):
        pass
    assert searcher.num_ended() == 14


@pytest.mark.parametrize("kind", ["tpe", "rungs_gp", "gp", "cmaes", "nsga2", "qmc", "random"])
def test_students_that_cost_too_much_are_not_trained_and_never_the_best(open_search: Open, kind: str) -> None:
    """The paper's own student, which costs too much, is trained to compare; Optuna's best is ours."""
    startup = {"startup_trials": 3} if kind in ("tpe", "rungs_gp", "gp") else {}
    settings: dict[str, Any] = {
        "space": {"student/net": {"choices": ["resnet8", "MobileNetV2", "resnet14", "resnet20"]}},
        "constraints": {"macs": {"max": 1e7}, "parameters": {"max": 1_000_000}},
        "sampler": {"kind": kind, **startup}, "pruner": {"kind": "none"}, "trials": 7,
    }  # fmt: skip
    searcher = open_search(**settings)
    while run_trial(searcher, "t"):
        if searcher.num_ended() == 5:
            searcher = open_search(**settings)
    paper, *others = rows = searcher.run_files.trials()
    assert paper["breaks"] == "macs 1.25016e+07 is above 1e+07" and len(rows) == 7
    assert {row["params"]["student/net"] for row in others} == {"MobileNetV2"}
    best = max(others, key=lambda row: row["accuracy"])
    assert paper["accuracy"] > best["accuracy"] and rank_trials(rows)[0] == best
    status = get_status(searcher.run_files)
    assert status["best"]["number"] == searcher.optuna_study.best_trial.number == best["number"]
    trials = searcher.optuna_study.get_trials()
    rejected = [trial for trial in trials if trial.number not in searcher.rows]
    assert rejected and all(trial.state == TrialState.PRUNED for trial in rejected)
    assert all(trial.constraints["macs"] > 0 > trial.constraints["parameters"] for trial in rejected)


def test_a_space_of_few_points_is_used_up_without_those_that_cost_too_much(open_search: Open) -> None:
    space = dict.fromkeys(open_search("other").space, "fixed") | {
        "student/net": {"choices": ["resnet8", "MobileNetV2", "resnet20"]},
        "optimizer/nesterov": {"choices": [False, True]},
    }
    searcher = open_search(space=space, constraints={"macs": {"max": 1.3e7}})
    while run_trial(searcher, "t"):
        pass
    assert {row["params"]["student/net"] for row in searcher.rows.values()} == {"resnet8", "MobileNetV2"}
    assert len(searcher.rows) == 4 and searcher.end_reason == "all 4 points of the space are tried"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tpe", "rungs_gp"])
def test_interrupted_after_every_trial_it_proposes_the_same_points_and_prunes_at_the_same_rungs(
    open_search: Open, kind: str
) -> None:
    def one_by_one(name: str, again: bool) -> list[tuple[dict[str, Any], str, int]]:
        settings: dict[str, Any] = {"name": name, "sampler": {"kind": kind, "startup_trials": 4}}
        if kind == "rungs_gp":
            settings["pruner"] = {"kind": "rungs_gp", "eta": 2}
        searcher = open_search(**settings)
        while run_trial(searcher, "t"):
            if again:
                searcher = open_search(**settings)
        return [(row["params"], row["state"], row["epochs"]) for row in searcher.rows.values()]

    assert one_by_one("whole", again=False) == one_by_one("pieces", again=True)


def test_a_trial_that_was_running_is_handed_out_again_under_its_number(open_search: Open) -> None:
    first = open_search()
    params = first.suggest("a")
    assert isinstance(params, dict)
    first.record_epoch("a", epoch_result(params, 1))
    second = open_search()
    assert second.suggest("b") == params and list(second.rows) == [0]
    assert not second.record_epoch("b", epoch_result(params, 1))  # an epoch done twice is recorded once
    assert second.optuna_study.get_trials()[0].intermediate_values.keys() == {1}


def test_epochs_that_no_driver_recorded_are_told_to_optuna_with_their_rungs(open_search: Open) -> None:
    """A trial keeps an epoch before it reports it; its driver may die between the two."""
    whole, first = open_search(name="whole"), open_search(name="pieces")
    params = whole.suggest("a")
    assert isinstance(params, dict) and params == first.suggest("a")
    results = [epoch_result(params, epoch) for epoch in range(1, EPOCHS)]
    for result in results:
        whole.record_epoch("a", result)
    first.run_files.trial(0).write_json("epochs.json", results)
    second = open_search(name="pieces")
    second.suggest("b")
    second.record_epoch("b", results[-1])
    resumed, uninterrupted = second.optuna_study.get_trials()[0], whole.optuna_study.get_trials()[0]
    assert resumed.intermediate_values == uninterrupted.intermediate_values
    assert len(resumed.intermediate_values) > 1
    assert resumed.system_attrs == uninterrupted.system_attrs and resumed.system_attrs  # the rungs


def test_time_in_which_nobody_drives_a_trial_is_not_counted_and_a_clock_set_back_neither(
    open_search: Open, monkeypatch: Any
) -> None:
    clock = SimpleNamespace(now=1000.0, ticks=50.0, time=lambda: clock.now, monotonic=lambda: clock.ticks)
    monkeypatch.setattr("raykd.driver.searcher.time", clock)
    monkeypatch.setattr("raykd.driver.end_of_search.time", clock)
    first = open_search()
    params = first.suggest("a")
    assert isinstance(params, dict)
    clock.ticks += 10
    clock.now += 10
    first.record_epoch("a", epoch_result(params, 1))
    clock.ticks += 86_400  # its driver is dead
    clock.now += 86_400
    second = open_search()
    second.suggest("b")
    clock.ticks += 31
    clock.now -= 7200  # set back
    second.on_trial_complete("b", epoch_result(params, EPOCHS))
    row = second.rows[0]
    assert (row["seconds"], row["started"], row["ended"]) == (41, 1000, 1000 + 86_410 - 7200)


def test_hours_of_the_budget_are_counted_whatever_the_clock_says(open_search: Open, monkeypatch: Any) -> None:
    clock = SimpleNamespace(now=1e9, ticks=50.0, time=lambda: clock.now, monotonic=lambda: clock.ticks)
    monkeypatch.setattr("raykd.driver.end_of_search.time", clock)
    searcher = open_search(hours=2)
    clock.now += 1e6
    assert run_trial(searcher, "a") and not searcher.end_reason
    clock.now -= 2e6
    clock.ticks += 7201
    assert not run_trial(searcher, "b") and searcher.end_reason == "budget/hours = 2 is used up"


def test_lost_processes_and_errors_are_counted_where_optuna_shows_them(open_search: Open) -> None:
    searcher = open_search(trials=1)
    searcher.suggest("a")
    searcher.on_trial_complete("a", error=True)  # no failure.json: its process is gone
    searcher.suggest("b")
    assert searcher.optuna_study.get_trials()[0].user_attrs["lost"] == 1
    for _ in range(MAX_LOST_WORKERS + 1):  # however often its machine goes with notice, it is tried again
        failure = {"kind": "preempted", "reason": "its machine goes", "traceback": ""}
        searcher.run_files.trial(0).write_json("failure.json", failure)
        searcher.on_trial_complete("b", error=True)
        assert searcher.rows[0]["state"] == "WAITING" and searcher.suggest("b")
    failure = {"kind": "error", "reason": "ValueError: x", "traceback": ""}
    searcher.run_files.trial(0).write_json("failure.json", failure)
    searcher.on_trial_complete("b", error=True)
    trial = searcher.optuna_study.get_trials()[0]
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["errors"] == 1 and trial.user_attrs["lost"] == MAX_LOST_WORKERS + 2
    assert trial.user_attrs["reason"] == "ValueError: x"


def test_objectives_that_cannot_be_served_are_refused(open_search: Open) -> None:
    for search, message in [
        ({"objectives": ["parameters", "accuracy"]}, "one of accuracy, top5, .* the first, the others costs"),
        ({"objectives": ["macro_f1", "accuracy"]}, "one of accuracy, top5, .* the first, the others costs"),
        ({"objectives": ["macro_f2"]}, "should be .*'macro_f1'.* Did you mean 'macro_f1'"),
        ({"objectives": ["accuracy", "accuracy"]}, "distinct"),
        ({"objectives": ["accuracy", "parameters"], "sampler": {"kind": "cmaes"}}, "cmaes takes one"),
        ({"tolerance": 0.1}, "needs the sampler rungs_gp"),
        ({"objectives": ["accuracy", "parameters"], "sampler": {"kind": "rungs_gp"}}, "rungs_gp takes one"),
        ({"objectives": ["accuracy", "parameters"], "pruner": {"kind": "hyperband"}}, "hyperband takes one"),
    ]:
        with pytest.raises(UserError, match=message):
            open_search(**search)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tpe", "rungs_gp", "gp", "cmaes", "nsga2", "qmc", "random"])
def test_every_sampler_searches_a_space_of_conditional_fields_among_pruned_trials(
    open_search: Open, kind: str
) -> None:
    """The arm that has no fields of its own is the worse one, so that it is pruned."""
    method = {"name": "sdd", "divergence": {"kind": "dkd"}}
    searcher = open_search(trials=40, method=method, sampler={"kind": kind})
    while run_trial(searcher, "t"):
        pass
    rows = list(searcher.rows.values())
    assert searcher.num_ended() == 40 and searcher.is_done() and not searcher.end_reason
    assert {row["state"] for row in rows} == {"COMPLETE", "PRUNED"}
    assert len({len(row["params"]) for row in rows}) == 2


def test_cmaes_learns_from_pruned_trials(open_search: Open) -> None:
    """Its proposals for the next generation follow from those of the last, pruned ones too."""
    searcher = open_search(trials=24, sampler={"kind": "cmaes"}, pruner={"kind": "halving", "eta": 4})
    while run_trial(searcher, "t"):
        pass
    trials = searcher.optuna_study.get_trials()
    generations = {t.system_attrs.get("cma:generation") for t in trials}
    num_complete = sum(t.state == TrialState.COMPLETE for t in trials)
    assert num_complete < 8 and max(g for g in generations if g is not None) > 0  # a population is 8 trials


def test_points_that_are_used_up_end_the_search_and_none_is_trained_twice(open_search: Open) -> None:
    two_points = {"optimizer/lr": "fixed", "optimizer/nesterov": {"choices": [False, True]}}

    def search(name: str, again: bool, kind: str = "random") -> StudySearch:
        settings = {"name": name, "method": {"name": "ce"}, "trials": 6, "sampler": {"kind": kind}}
        searcher = open_search(space=two_points, **settings)
        while run_trial(searcher, "t"):
            if again:
                searcher = open_search(space=two_points, **settings)
        return searcher

    for kind in ("random", "tpe"):
        searcher = search(kind, again=False, kind=kind)
        assert sorted(row["params"]["optimizer/nesterov"] for row in searcher.rows.values()) == [False, True]
        assert searcher.end_reason == "all 2 points of the space are tried" and searcher.is_done()
        assert [row["params"] for row in search(f"{kind}2", again=True, kind=kind).rows.values()] == [
            row["params"] for row in searcher.rows.values()
        ]


def test_of_countable_points_none_is_trained_twice_before_all_are_used_up(open_search: Open) -> None:
    space = {
        "optimizer/lr": {"low": 0.02, "high": 0.07, "step": 0.01},
        "optimizer/nesterov": {"choices": [False, True]},
    }
    searcher = open_search(method={"name": "ce"}, trials=11, space=space, sampler={"kind": "random"})
    while run_trial(searcher, "t"):
        pass
    assert searcher.num_ended() == 11 and not searcher.end_reason
    points = {
        (round(r["params"]["optimizer/lr"], 2), r["params"]["optimizer/nesterov"])
        for r in searcher.rows.values()
    }
    assert len(points) == 11
    repeated = [t for t in searcher.optuna_study.get_trials() if t.user_attrs.get("role") == "duplicate"]
    assert repeated and {t.state for t in repeated} == {TrialState.FAIL}
    assert open_search(method={"name": "ce"}, trials=11, space=space, sampler={"kind": "random"}).is_done()


def fail(searcher: StudySearch, kind: str) -> bool:
    if not isinstance(searcher.suggest("t"), dict):
        return False
    number = max(searcher.rows)
    failure = {"kind": kind, "reason": f"{kind} at {number}", "traceback": ""}
    searcher.run_files.trial(number).write_json("failure.json", failure)
    searcher.on_trial_complete("t", error=True)
    return True


@pytest.mark.slow
def test_a_study_ends_at_five_errors_or_at_twenty_divergences_when_nothing_succeeded(
    open_search: Open,
) -> None:
    searcher = open_search(name="errors", trials=30)
    while fail(searcher, "error"):
        pass
    assert searcher.end_reason == "the first 5 trials failed, the last with: error at 4"
    searcher = open_search(name="diverged", trials=30)
    for _ in range(19):
        assert fail(searcher, "diverged")
    searcher = open_search(name="diverged", trials=30)
    while fail(searcher, "diverged"):
        pass
    assert searcher.num_ended() == 20
    assert searcher.end_reason == "the first 20 trials failed or diverged, the last with: diverged at 19"
    searcher = open_search(name="one good", trials=30)
    assert fail(searcher, "error") and run_trial(searcher, "t")
    while fail(searcher, "error"):
        pass
    assert searcher.num_ended() == 30 and not searcher.end_reason


@pytest.mark.slow
def test_a_search_ends_when_its_model_expects_too_little_and_an_interrupted_one_at_the_same_trial(
    open_search: Open,
) -> None:
    settings: dict[str, Any] = {
        "trials": 60, "method": {"name": "ce"}, "sampler": {"kind": "rungs_gp", "startup_trials": 4},
        "pruner": {"kind": "rungs_gp", "eta": 2}, "tolerance": 2.0,
    }  # fmt: skip
    whole, pieces = open_search(name="whole", **settings), open_search(name="pieces", **settings)
    while run_trial(whole, "t"):
        run_trial(pieces, "t")
        pieces = open_search(name="pieces", **settings)
    assert 6 < whole.num_ended() == pieces.num_ended() < 60
    assert whole.end_reason.startswith("search/tolerance = 2: the model expects")
    assert not run_trial(pieces, "t") and pieces.is_done()


def test_optuna_itself_has_no_first_objective(open_search: Open) -> None:
    """When this fails, driver/first_objective.py can go."""
    searcher = open_search(objectives=["accuracy", "parameters"])
    with pytest.raises(RuntimeError, match="single direction"):
        _ = optuna.Study.direction.fget(searcher.optuna_study)  # type: ignore[attr-defined]
    plain = optuna.create_study(directions=["maximize", "minimize"])
    trial = plain.ask()
    with pytest.raises(NotImplementedError, match="multi-objective"):
        trial.report(1.0, 1)
    assert searcher.optuna_study.direction == StudyDirection.MAXIMIZE
