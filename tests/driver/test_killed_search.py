"""A driver killed at any of its writes: the next one goes on as if nothing had happened.

A copy of the run's folder before a write is what a driver that is killed there leaves behind.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages.journal import JournalFileBackend

from raykd.driver.searcher import StudySearch
from raykd.store.folder import Folder
from raykd.store.run_files import RunFiles
from raykd.study.study import Study
from raykd.study.yaml_file import read_yaml

EPOCHS, TRIALS = 5, 6
Rows = list[tuple[Any, ...]]


def make_study(small: Path, sampler: str, **search: Any) -> Study:
    plain = read_yaml(small)
    plain["recipe"]["epochs"], plain["budget"]["trials"] = EPOCHS, TRIALS
    plain["space"]["optimizer/nesterov"] = {"choices": [True, False]}
    startup = {"startup_trials": 2} if sampler in ("tpe", "gp") else {}
    pruner = {"kind": "halving", "min_fraction": 0.2, "eta": 2}
    plain["search"] = {"sampler": {"kind": sampler} | startup, "pruner": pruner} | search
    return Study.parse(plain, "small")


def open_search(study: Study, folder: Path) -> StudySearch:
    return StudySearch(
        study, RunFiles(str(folder)), lambda number, params: {"number": number}, lambda: 1, lambda row: None
    )


def train(searcher: StudySearch, folder: Folder, params: dict[str, Any]) -> None:
    """As a trial's process does: each epoch is on disk before it is reported; it goes on after the last."""
    rows = folder.read_json("epochs.json") or []
    best = 80 - 20 * abs(math.log(params["optimizer/lr"] / 0.05)) - 5 * params["method/weights/contrast"]
    epoch = len(rows)
    stop = False
    while not stop:
        epoch = min(epoch + 1, EPOCHS)  # again when all was done, but not reported
        row = {"epoch": epoch, "accuracy": best * (1 - 0.5**epoch), "seconds": 2.0}
        if epoch > len(rows):
            rows.append(row)
            folder.write_json("epochs.json", rows)
        result = row | {"final": epoch == EPOCHS, "parameters": 1000}
        stop = searcher.record_epoch("t", result) or result["final"]
    searcher.on_trial_complete("t", result)


def run_to_end(study: Study, folder: Path) -> Rows:
    searcher = open_search(study, folder)
    while isinstance(config := searcher.suggest("t"), dict):
        number = config["number"]
        train(searcher, searcher.run_files.trial(number), searcher.rows[number]["params"])
    assert searcher.is_done()
    trials = {trial.number: trial for trial in searcher.optuna_study.get_trials()}
    rows = sorted(RunFiles(str(folder)).trials(), key=lambda row: row["number"])
    assert [trials[row["number"]].state.name for row in rows] == [row["state"] for row in rows]
    assert all(trials[row["number"]].params == row["params"] for row in rows)
    keys = ("number", "role", "params", "state", "epochs", "accuracy", "seconds_per_epoch")
    recorded = [sorted(trials[row["number"]].intermediate_values) for row in rows]
    rungs = [trials[row["number"]].system_attrs.get("completed_rung_0") for row in rows]
    return [(*(row[key] for key in keys), *rest) for row, *rest in zip(rows, recorded, rungs, strict=True)]


def copy_before(
    target: Any, name: str, folder: Path, copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lets a method copy the folder before it writes."""
    write = getattr(target, name)

    def copy_and_write(*arguments: Any) -> Any:
        copies.append(folder.with_name(f"killed{len(copies)}"))
        shutil.copytree(folder, copies[-1])
        return write(*arguments)

    monkeypatch.setattr(target, name, copy_and_write)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_killed_before_any_of_its_writes_it_ends_as_if_it_had_not_been(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    study, folder, copies = make_study(small, sampler), tmp_path / "whole", []
    RunFiles(str(folder)).begin(study.to_dict())
    with monkeypatch.context() as context:
        copy_before(JournalFileBackend, "append_logs", folder, copies, context)
        copy_before(Folder, "write", folder, copies, context)
        whole = run_to_end(study, folder)
    assert len(whole) == TRIALS and {row[3] for row in whole} == {"COMPLETE", "PRUNED"}
    assert len(copies) > 60
    for copy in copies:
        assert run_to_end(study, copy) == whole, copy.name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "database"),
    [*((sampler, False) for sampler in ("tpe", "gp", "cmaes", "nsga2", "qmc", "random")), ("tpe", True)],
)
def test_a_trial_that_was_asked_for_without_its_point_gets_the_point_that_it_would_have_got(
    small: Path, tmp_path: Path, sampler: str, database: bool
) -> None:
    def draw_fifth(name: str, kill: Callable[[StudySearch], None]) -> Any:
        storage = f"sqlite:///{tmp_path}/{name}.db" if database else None
        study, folder = make_study(small, sampler, storage=storage), tmp_path / name
        RunFiles(str(folder)).begin(study.to_dict())
        searcher = open_search(study, folder)
        for number in range(4):
            searcher.suggest("t")
            train(searcher, searcher.run_files.trial(number), searcher.rows[number]["params"])
        kill(searcher)
        again = open_search(study, folder)
        assert again.suggest("t") == {"number": 4} and list(again.rows) == [0, 1, 2, 3, 4]
        return again.rows[4]["params"]

    whole = draw_fifth("whole", lambda searcher: None)
    assert draw_fifth("pieces", lambda searcher: searcher.optuna_study.ask()) == whole
