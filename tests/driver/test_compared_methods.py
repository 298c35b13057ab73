"""A real comparison of two methods: Ray, processes, a kill; and what the verbs say of it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.run_files import Start, kill_all, read_epochs, read_rows, wait_for

from raykd.cli.output.comparison import ComparisonBoard
from raykd.cli.output.progress import ProgressBoard
from raykd.driver import launch
from raykd.store.run_files import RunFiles
from raykd.study.comparison import Comparison, list_studies, read_study

COMPARISON = """
name: two
methods: [kd, dcd]
recipe:
  data: {name: digits, images: 320, holdout: 0.2}
  teacher: {net: resnet8, train: {epochs: 1, optimizer: {batch_size: 32}}}
  student: {net: resnet8}
  epochs: 3
  optimizer: {batch_size: 32}
  precision: float32
space: {optimizer/lr: {low: 0.02, high: 0.2, log: true}}
search: {pruner: {kind: none}}
budget: {trials: 2}
cluster: {cpus: 1}
confirm: {controls: [kd], seeds: 2}
"""
METHODS = ("kd", "dcd")


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(COMPARISON)
    return path


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_killed_comparison_goes_on_and_ends_with_one_page_and_a_recipe_of_each_method(
    comparison: Path, tmp_path: Path, start_verb: Start, verb: Any, ray_session: str
) -> None:
    run = tmp_path / "runs/two"
    driver = start_verb("launch", str(comparison))
    wait_for(lambda: all(read_epochs(run / method, 0) for method in METHODS))
    refused = verb("resume", str(run / "dcd"))
    assert refused.returncode == 2 and f"process {driver.pid}" in refused.stderr
    kill_all(driver)
    status = json.loads(verb("status", str(run), "--json").stdout)
    assert status["state"] == "interrupted" and list(status["methods"]) == ["kd", "dcd"]
    done = verb("resume", str(run))
    assert done.returncode == 0, done.stderr + done.stdout
    for method in METHODS:
        rows = read_rows(run / method)
        assert [row["state"] for row in rows] == ["COMPLETE"] * 2 and rows[0]["role"] == "paper"
        assert [e["epoch"] for e in read_epochs(run / method, 0)] == [1, 2, 3]
        assert (run / method / "export/recipe.yaml").exists()
    assert "dcd: trial 1" in done.stdout  # kd, which is faster, may have had its own before the kill
    assert len(list((tmp_path / "runs/teachers").iterdir())) == 1 and not (run / "dcd/teacher").exists()
    table = (run / "report/tables/comparison.csv").read_text()
    assert "dcd, searched" in table and '"kd, searched (two-kd)"' in table.split("dcd, searched")[1]

    shown = verb("status", str(run))
    assert shown.returncode == 0 and "two: finished" in shown.stdout
    assert all(f"test      {method}, best" in shown.stdout for method in METHODS)
    again = verb("launch", str(comparison))
    assert again.returncode == 0 and "finished before" in again.stdout
    other = verb("launch", str(comparison), "--set", "methods=[dcd]")
    assert other.returncode == 2 and "another study (different: methods)" in other.stderr
    one = verb("export", str(run), "out")
    assert one.returncode == 2 and f"name one of them: {run}/kd, {run}/dcd" in one.stderr


@pytest.mark.slow
def test_what_no_comparison_takes_is_refused_before_anything_begins(
    comparison: Path, tmp_path: Path, verb: Any
) -> None:
    warm = verb("launch", str(comparison), "--warm-start", str(tmp_path))
    assert warm.returncode == 2 and warm.stderr.startswith("--warm-start: every method of a comparison")
    bad = verb("launch", str(comparison), "--set", "methods=[kd, sskd]")
    assert (bad.returncode, bad.stderr) == (2, "sskd needs data/rotations = 4, but it is 1\n")
    plan = verb("plan", str(comparison), "--images-per-second", "1000", "--json")
    plans = json.loads(plan.stdout)["methods"]
    assert list(plans) == ["kd", "dcd"] and plans["dcd"]["trials"] == 2
    shown = verb("plan", str(comparison), "--images-per-second", "100", "--set", "budget/device_hours=0.001")
    assert "about 1" in shown.stdout and "0.001" in shown.stdout
    assert not (tmp_path / "runs").exists()


def test_resume_with_trials_asks_for_so_many_of_each_method(comparison: Path, tmp_path: Path) -> None:
    study = read_study(comparison)
    assert isinstance(study, Comparison)
    run_files = RunFiles(str(tmp_path / "runs/two"))
    run_files.begin_comparison(study.to_dict(), list(study.list_methods()))
    extended = launch.read_study(run_files.folder.uri, 5)
    assert isinstance(extended, Comparison)
    assert [one.budget.trials for one in extended.studies().values()] == [5, 5]
    launch.check_same_study(extended, run_files)  # its budget may be another


def test_the_live_table_has_a_row_for_each_method(
    comparison: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = {study.recipe.method.name: study.to_dict() for study in list_studies(read_study(comparison))}
    boards = {
        method: ProgressBoard(study, "runs/two", [], f"{method}: ") for method, study in studies.items()
    }
    board = ComparisonBoard("two", "runs/two", boards)
    board.print_line("resources", {"message": "a trial takes 1 CPU", "cpus": 1.0, "gpus": 0.0})
    row = {"number": 0, "role": "paper", "state": "COMPLETE", "accuracy": 61.0, "seconds": 7200.0}
    row |= {"started": 0.0, "ended": 7200.0, "reason": "", "epochs": 3, "params": {}, "method": "dcd"}
    board.print_line("search", row)
    board.print_line("stopped", {"method": "kd", "reason": "the disk is full"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines if "dcd" not in line] == [
        "a trial takes 1 CPU", "kd: stopped: the disk is full",
    ]  # fmt: skip
    assert "dcd: trial 0 (the paper's point) complete at epoch 3: 61.00 %" in lines[1]
    board.update("search", row | {"number": 1, "state": "RUNNING", "ended": None})
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(board.render())
    table = console.export_text()
    dcd = next(line for line in table.splitlines() if "dcd" in line)
    assert dcd.split() == ["dcd", "1", "1", "0", "0", "61.00", "%", "61.00", "%", "4.00"]
    assert "each method gets 2 trials" in table and "runs/two" in table
