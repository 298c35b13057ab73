"""Whose memory an Optuna study is: a stranger's, a lost or an older one is refused before anything begins."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from raykd.driver.launch import launch, resume
from raykd.driver.optuna_check import check_memory
from raykd.driver.searcher import StudySearch
from raykd.errors import UserError
from raykd.store.run_files import RunFiles
from raykd.study.study import Study


def open_search(study: Study, run_files: RunFiles) -> StudySearch:
    return StudySearch(study, run_files, lambda number, params: params, lambda: 9, lambda row: None)


def begin(study: Study, folder: Path, trials: int = 2) -> RunFiles:
    """A run with so many complete trials and a running one."""
    run_files = RunFiles(str(folder))
    run_files.begin(study.to_dict())
    searcher = open_search(study, run_files)
    for number in range(trials):
        assert isinstance(searcher.suggest(str(number)), dict)
        result = {"epoch": 3, "accuracy": 50.0 + number, "final": True, "seconds": 1.0, "parameters": 1}
        searcher.record_epoch(str(number), result)
        searcher.on_trial_complete(str(number), result)
    assert isinstance(searcher.suggest("running"), dict)
    return run_files


def refuse(study: Study, run_files: RunFiles) -> str:
    with pytest.raises(UserError) as error:
        check_memory(study, run_files)
    with pytest.raises(UserError, match="small"):
        open_search(study, run_files)
    return "\n".join(error.value.lines)


@pytest.mark.slow
def test_a_study_of_the_same_name_in_a_used_database_is_another_runs(small: Path, tmp_path: Path) -> None:
    database = f"search/storage=sqlite:///{tmp_path}/st.db"
    study = Study.read(small, (database, "space/optimizer/nesterov={choices: [true, false]}"))
    run_files = begin(study, tmp_path / "one/small")
    check_memory(study, run_files)
    shutil.move(tmp_path / "one", tmp_path / "moved")  # a run takes its identity along
    moved = RunFiles(str(tmp_path / "moved/small"))
    check_memory(study, moved)
    assert open_search(study, moved).num_ended() == 2
    with pytest.raises(UserError) as error:
        launch(study, storage=str(tmp_path / "two"))
    assert error.value.lines == [
        f"sqlite:///{tmp_path}/st.db: the study 'small' there is another run's: 3 trials. Give this one "
        "another name (--set name=...), or take another search/storage"
    ]
    others = ("space/optimizer/nesterov={choices: [false, true]}", "search/objectives=[accuracy, parameters]")
    with pytest.raises(UserError) as error:
        launch(Study.read(small, (database, *others)), storage=str(tmp_path / "two"))
    (line,) = error.value.lines
    assert "search/objectives: it holds accuracy, the study accuracy, parameters" in line
    assert "space/optimizer/nesterov: it holds {True, False}, the study {False, True}" in line
    assert not (tmp_path / "two").exists()  # the corrected study is no other study
    assert len(optuna.load_study(study_name="small", storage=f"sqlite:///{tmp_path}/st.db").trials) == 3
    renamed = Study.read(small, (database, "name=other"))
    check_memory(renamed, RunFiles(str(tmp_path / "two/other")))


def test_a_storage_that_cannot_be_opened_is_found_before_the_run_is_begun(
    small: Path, tmp_path: Path
) -> None:
    study = Study.read(small, (f"search/storage=sqlite:///{tmp_path}/nowhere/st.db",))
    with pytest.raises(UserError, match=r"search/storage: OperationalError: .*unable to open database file"):
        launch(study, storage=str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_the_same_run_with_other_ranges_says_what_its_memory_holds(small: Path, tmp_path: Path) -> None:
    """A newer version may declare other ranges for a method than the run was begun with."""
    study = Study.read(small, ("space/optimizer/nesterov={choices: [true, false]}",))
    run_files = begin(study, tmp_path / "small")
    other = ("space/optimizer/nesterov={choices: [false, true]}", "space/optimizer/lr={low: 0.01, high: 1}")
    lines = refuse(Study.read(small, other), run_files).splitlines()
    assert len(lines) == 2
    assert "space/optimizer/lr: it holds 0.02 .. 0.2 log, the study 0.01 .. 1. Go on with what it" in lines[0]
    assert "space/optimizer/nesterov: it holds {True, False}, the study {False, True}" in lines[1]


def edit_row(run_files: RunFiles, number: int, **changes: Any) -> None:
    folder = run_files.trial(number)
    folder.write_json("trial.json", folder.read_json("trial.json") | changes)


def edit_journal(run_files: RunFiles, edit: Callable[[list[str]], list[str]]) -> None:
    path = run_files.journal_path()
    assert path is not None
    path.write_text("".join(edit(path.read_text().splitlines(keepends=True))))


def cut_before_second_trial_ended(lines: list[str]) -> list[str]:
    ends = [place for place, line in enumerate(lines) if json.loads(line).get("state") == 1]
    return lines[: ends[1]]


def delete_journal(run_files: RunFiles) -> None:
    path = run_files.journal_path()
    assert path is not None
    path.unlink()


DAMAGES: dict[str, Callable[[RunFiles], Any]] = {
    "trial 0: COMPLETE in the run, not there in Optuna": delete_journal,
    "trial 1: COMPLETE in the run, RUNNING in Optuna": lambda run: edit_journal(
        run, cut_before_second_trial_ended
    ),
    "trial 1: PRUNED in the run, COMPLETE in Optuna": lambda run: edit_row(run, 1, state="PRUNED"),
    "trial 1: {'optimizer/lr': 0.1} in the run": lambda run: edit_row(run, 1, params={"optimizer/lr": 0.1}),
    "trial 1: not there in the run, COMPLETE": lambda run: run.trial(1).remove("trial.json"),
    "damaged, or no journal of Optuna (KeyError": lambda run: edit_journal(run, lambda old: ["{}\n", *old]),
    "damaged, or no journal of Optuna (": lambda run: edit_journal(
        run, lambda old: ["<html>\n", "</html>\n"]
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("message", DAMAGES)
def test_a_memory_and_rows_that_disagree_are_refused(small: Path, tmp_path: Path, message: str) -> None:
    study = Study.read(small)
    run_files = begin(study, tmp_path / "small")
    DAMAGES[message](run_files)
    before = run_files.folder.file_sizes()
    assert message in refuse(study, run_files)
    with pytest.raises(UserError):
        resume(run_files.folder.uri)
    after = run_files.folder.file_sizes()
    own = {"driver.lock", "optuna.journal", "study.yaml"}
    assert {name for name in after if before.get(name) != after[name]} <= own


def test_a_database_that_was_deleted_is_refused(small: Path, tmp_path: Path) -> None:
    study = Study.read(small, (f"search/storage=sqlite:///{tmp_path}/st.db",))
    run_files = begin(study, tmp_path / "small")
    (tmp_path / "st.db").unlink()
    assert f"its trials and sqlite:///{tmp_path}/st.db disagree" in refuse(study, run_files)
