"""The searcher driven by hand: what Tune would call, without Tune; Optuna's real storage underneath."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from raykd.driver.searcher import StudySearch
from raykd.errors import BadInput
from raykd.store.run_files import Ledger
from raykd.study.study import Study
from raykd.study.yaml_file import read_yaml

EPOCHS = 9
Open = Callable[..., StudySearch]


@pytest.fixture
def opened(small: Path, tmp_path: Path) -> Open:
    """A searcher on the run `name`, for the small study with settings; opened again it is the same run."""

    def make(name: str = "run", trials: int = 12, **search: Any) -> StudySearch:
        plain = read_yaml(small)
        plain["recipe"]["epochs"] = EPOCHS
        plain["budget"]["trials"] = trials
        plain["search"] = {"pruner": {"kind": "halving", "grace": 0.2, "eta": 2}} | search
        study, ledger = Study.parse(plain, "small"), Ledger(str(tmp_path / name))
        ledger.begin(study.plain())
        return StudySearch(study, ledger, lambda number, drawn: drawn, lambda: 2, quiet)

    return make


def quiet(row: dict[str, Any]) -> None:
    pass


def epoch_result(drawn: dict[str, Any], epoch: int) -> dict[str, Any]:
    """A learning curve that follows from what was drawn."""
    best = 80 - 20 * abs(math.log(drawn["optimizer/lr"] / 0.05)) - 5 * drawn["method/weights/contrast"]
    return {
        "epoch": epoch, "accuracy": best * (1 - 0.5**epoch), "final": epoch == EPOCHS,
        "seconds": 10 * drawn["optimizer/lr"], "parameters": 1000,
    }  # fmt: skip


def teach(searcher: StudySearch, name: str) -> bool:
    """One trial to its end or to the rung that stops it; whether there was one."""
    drawn = searcher.suggest(name)
    if not isinstance(drawn, dict):
        return False
    for epoch in range(1, EPOCHS + 1):
        result = epoch_result(drawn, epoch)
        if searcher.heard(name, result):
            break
    searcher.on_trial_complete(name, result)
    return True


def test_several_objectives_are_told_and_the_accuracy_prunes(opened: Open) -> None:
    searcher = opened(objectives=["accuracy", "seconds_per_epoch", "parameters"])
    while teach(searcher, "t"):
        pass
    told = searcher.optuna.get_trials()
    assert len(told) == 12 and searcher.done()
    pruned = [t for t in told if t.state == TrialState.PRUNED]
    complete = [t for t in told if t.state == TrialState.COMPLETE]
    assert pruned and complete and len(pruned) + len(complete) == 12
    for trial in complete:
        row = searcher.rows[trial.number]
        assert trial.values == [row["accuracy"], row["seconds_per_epoch"], 1000]
        assert row["seconds_per_epoch"] == pytest.approx(10 * row["drawn"]["optimizer/lr"])
    for trial in pruned:
        assert sorted(trial.intermediate_values) == list(range(1, max(trial.intermediate_values) + 1))
        assert max(trial.intermediate_values) < EPOCHS
    assert searcher.optuna.metric_names == ["accuracy", "seconds_per_epoch", "parameters"]


@pytest.mark.parametrize("kind", ["tpe", "gp", "nsga2", "qmc", "random"])
def test_every_sampler_of_several_objectives_searches_among_pruned_trials(opened: Open, kind: str) -> None:
    searcher = opened(
        name=kind, trials=14, objectives=["accuracy", "seconds_per_epoch"], sampler={"kind": kind}
    )
    while teach(searcher, "t"):
        pass
    assert searcher.told() == 14


def test_interrupted_after_every_trial_it_proposes_the_same_points_and_prunes_at_the_same_rungs(
    opened: Open,
) -> None:
    def one_by_one(name: str, again: bool) -> list[tuple[dict[str, Any], str, int]]:
        searcher = opened(name=name, sampler={"kind": "tpe", "startup_trials": 4})
        while teach(searcher, "t"):
            searcher = opened(name=name, sampler={"kind": "tpe", "startup_trials": 4}) if again else searcher
        return [(row["drawn"], row["state"], row["epochs"]) for row in searcher.rows.values()]

    assert one_by_one("whole", again=False) == one_by_one("pieces", again=True)


def test_a_trial_that_was_running_is_handed_out_again_under_its_number(opened: Open) -> None:
    first = opened()
    drawn = first.suggest("a")
    assert isinstance(drawn, dict)
    first.heard("a", epoch_result(drawn, 1))
    second = opened()
    assert second.suggest("b") == drawn and list(second.rows) == [0]
    assert not second.heard("b", epoch_result(drawn, 1))  # an epoch done twice is told once
    assert second.optuna.get_trials()[0].intermediate_values.keys() == {1}


def test_epochs_that_no_driver_heard_of_are_told_with_their_rungs(opened: Open) -> None:
    """A trial keeps an epoch before it reports it; its driver may die between the two."""
    whole, first = opened(name="whole"), opened(name="pieces")
    drawn = whole.suggest("a")
    assert isinstance(drawn, dict) and drawn == first.suggest("a")
    results = [epoch_result(drawn, epoch) for epoch in range(1, EPOCHS)]
    for result in results:
        whole.heard("a", result)
    first.ledger.trial(0).write_json("epochs.json", results)
    second = opened(name="pieces")
    second.suggest("b")
    second.heard("b", results[-1])
    ours, theirs = second.optuna.get_trials()[0], whole.optuna.get_trials()[0]
    assert ours.intermediate_values == theirs.intermediate_values and len(ours.intermediate_values) > 1
    assert ours.system_attrs == theirs.system_attrs and ours.system_attrs  # the rungs


def test_time_in_which_nobody_drives_a_trial_is_not_counted(opened: Open, monkeypatch: Any) -> None:
    clock = SimpleNamespace(now=1000.0, time=lambda: clock.now)
    monkeypatch.setattr("raykd.driver.searcher.time", clock)
    first = opened()
    drawn = first.suggest("a")
    assert isinstance(drawn, dict)
    clock.now += 10
    first.heard("a", epoch_result(drawn, 1))
    clock.now += 86_400  # its driver is dead
    second = opened()
    second.suggest("b")
    clock.now += 31
    second.on_trial_complete("b", epoch_result(drawn, EPOCHS))
    row = second.rows[0]
    assert (row["seconds"], row["started"], row["ended"]) == (41, 1000, 1000 + 86_441)


def test_lost_processes_and_errors_are_counted_where_optuna_shows_them(opened: Open) -> None:
    searcher = opened(trials=1)
    searcher.suggest("a")
    searcher.on_trial_complete("a", error=True)  # no failure.json: its process is gone
    searcher.suggest("b")
    assert searcher.optuna.get_trials()[0].user_attrs["lost"] == 1
    failure = {"kind": "error", "reason": "ValueError: x", "traceback": ""}
    searcher.ledger.trial(0).write_json("failure.json", failure)
    searcher.on_trial_complete("b", error=True)
    told = searcher.optuna.get_trials()[0]
    assert told.state == TrialState.FAIL and told.user_attrs["tries"] == 1 and told.user_attrs["lost"] == 1
    assert told.user_attrs["reason"] == "ValueError: x"


def test_objectives_that_cannot_be_served_are_said(opened: Open) -> None:
    for search, words in [
        ({"objectives": ["parameters", "accuracy"]}, "accuracy the first"),
        ({"objectives": ["accuracy", "accuracy"]}, "distinct"),
        ({"objectives": ["accuracy", "parameters"], "sampler": {"kind": "cmaes"}}, "cmaes takes one"),
        ({"objectives": ["accuracy", "parameters"], "pruner": {"kind": "hyperband"}}, "hyperband takes one"),
    ]:
        with pytest.raises(BadInput, match=words):
            opened(**search)
