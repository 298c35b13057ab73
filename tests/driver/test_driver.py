"""Real studies: Ray, Optuna's journal, real processes, real kills."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from support import fake_runs
from support.run_files import (
    ALL_CPUS,
    HALF_OF_CPUS,
    Start,
    assert_whole,
    kill_all,
    read_epochs,
    read_journal,
    read_params,
    read_rows,
    wait_for,
)

from raykd.data.augment import NoAugment, RandAugment
from raykd.run import Run, launch
from raykd.store.folder import Folder
from raykd.study.study import Study
from raykd.training.student import read_recipe

AUGMENT = ("kind", "magnitude", "num_ops")
AUGMENTED = (
    *(f"space/data/augment/{name}=open" for name in AUGMENT),
    "enqueue=[{data/augment/kind: randaugment}]",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.mark.timeout(900)  # four sessions of Ray, one after another
def test_killed_and_interrupted_it_proposes_and_learns_what_an_uninterrupted_study_does(
    small: Path, tmp_path: Path, start_verb: Start, verb: Any, ray_session: str
) -> None:
    """Its fields are those of randaugment, too, which some points have and others have not."""
    whole, settings = tmp_path / "whole/small", (ALL_CPUS, *AUGMENTED)
    launch(Study.read(small, settings), storage="whole")
    assert_whole(whole, 3, 3)

    run = tmp_path / "runs/small"
    words = [word for setting in (*settings, "budget/trials=2") for word in ("--set", setting)]
    first_driver = start_verb("launch", str(small), *words)
    wait_for(lambda: len(read_epochs(run, 1)) >= 1)
    kill_all(first_driver)  # the driver and the whole cluster
    second_driver = start_verb("resume", str(run))
    wait_for(lambda: len(read_epochs(run, 1)) >= 2)
    os.kill(second_driver.pid, signal.SIGINT)
    assert second_driver.wait(60) == 130
    assert "raykd resume" in second_driver.communicate()[0]
    status = verb("status", str(run), "--json")
    assert json.loads(status.stdout)["state"] == "interrupted"
    last = verb("resume", str(run), "--trials", "3")
    assert last.returncode == 0, last.stderr
    assert "3 done, 0 pruned, 0 failed of 3" in last.stdout
    assert_whole(run, 3, 3)
    assert read_params(run) == read_params(whole)
    paper, enqueued, _ = (read_recipe(Folder(str(run / f"trials/0000{k}"))).data.augment for k in range(3))
    assert paper == NoAugment() and isinstance(enqueued, RandAugment)
    params = read_params(run)[1]
    assert [params[f"data/augment/{name}"] for name in AUGMENT] == [
        getattr(enqueued, name) for name in AUGMENT
    ]
    assert [row["accuracy"] for row in read_rows(run)] == [row["accuracy"] for row in read_rows(whole)]
    assert (run / "report/index.html").exists()
    again = verb("resume", str(run))
    assert again.returncode == 0 and "finished before" in again.stdout

    other = verb("launch", str(small), "--set", ALL_CPUS, "--set", "epochs=4")  # another study, one name
    assert other.returncode == 2 and "holds a run of another study" in other.stderr
    exported = verb("train", str(run / "export/recipe.yaml"), "--out", "again")
    assert exported.returncode == 0, exported.stderr
    best = max(read_rows(run), key=lambda row: row["accuracy"])
    rerun = json.loads((tmp_path / "again/epochs.json").read_text())[-1]
    assert rerun["accuracy"] == pytest.approx(best["accuracy"], abs=2)
    assert Run.open(run).best().method.name == "dcd"


def test_terminated_while_the_teacher_trains_it_says_how_to_go_on(
    small: Path, tmp_path: Path, start_verb: Start, verb: Any, ray_session: str
) -> None:
    """SIGTERM, as Ctrl-C; Ray Train would have ended the program with 0."""
    teacher = "recipe/teacher={net: resnet14, train: {epochs: 40, optimizer: {batch_size: 32}}}"
    driver = start_verb("launch", str(small), "--set", teacher, "--address", ray_session)
    epochs_file = tmp_path / "runs/small/teacher/epochs.json"
    wait_for(epochs_file.exists)
    driver.terminate()
    assert driver.wait(60) == 130
    assert "Go on with: raykd resume" in driver.communicate()[0]
    assert json.loads(verb("status", "runs/small", "--json").stdout)["state"] == "interrupted"


def test_a_killed_worker_is_tried_again_and_a_second_driver_is_refused(
    small: Path, tmp_path: Path, start_verb: Start, verb: Any, ray_session: str
) -> None:
    run = tmp_path / "runs/small"
    launch_args = ("launch", str(small), "--set", "epochs=10", "--set", "budget/trials=2")
    driver = start_verb(*launch_args, "--address", ray_session)
    wait_for(lambda: len(read_epochs(run, 0)) >= 2)
    provenance = json.loads((run / "trials/00000/provenance.json").read_text())
    os.kill(int(provenance["worker"].split()[-1]), signal.SIGKILL)
    other = verb(*launch_args)
    assert other.returncode == 2 and f"process {driver.pid}" in other.stderr
    assert driver.wait(180) == 0
    assert_whole(run, 2, 10)
    assert read_rows(run)[0]["lost"] == 1 and read_rows(run)[0]["errors"] == 0


def test_a_trial_of_two_workers_is_pruned_and_frees_what_it_held(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: str
) -> None:
    """Two of the three trials learn nothing, and only one of all may go on."""
    monkeypatch.chdir(tmp_path)
    settings = (
        "search/pruner={kind: halving, min_fraction: 0.6, eta: 3}",
        "optimizer/batch_size=8",
        "space/optimizer/lr={low: 1.0e-8, high: 0.2, log: true}",
        "enqueue=[{optimizer/lr: 1.0e-8}, {optimizer/lr: 2.0e-8}]",
    )
    launch(Study.read(small, ("cluster/workers=2", HALF_OF_CPUS, "budget/trials=3", *settings)))
    run = tmp_path / "runs/small"
    states = {row["state"] for row in read_rows(run)}
    assert len(read_rows(run)) == 3 and states <= {"COMPLETE", "PRUNED"} and "PRUNED" in states
    for trial in read_journal(run):
        if trial.state == TrialState.PRUNED:
            assert trial.intermediate_values and len(trial.intermediate_values) < 3


def test_failures_are_sorted(small: Path, tmp_path: Path, verb: Any, ray_session: str) -> None:
    wild = ("--set", "optimizer/lr=1.0e+30", "--set", "space/optimizer/lr=fixed", "--set", "budget/trials=6")
    done = verb("launch", str(small), *wild)
    assert done.returncode == 1
    assert "stopped: no trial was completed, the last failed with: loss term not finite" in done.stderr
    run = tmp_path / "runs/small"
    states = [row["state"] for row in read_rows(run)]
    assert states == ["FAIL"] * 6  # five divergences do not end a study
    assert all(
        t.state == TrialState.FAIL and "not finite" in t.user_attrs["reason"] for t in read_journal(run)[:5]
    )
    assert (run / "report/index.html").exists()


def test_what_never_fits_is_refused_before_anything_starts(small: Path, verb: Any, ray_session: str) -> None:
    done = verb("launch", str(small), "--set", "cluster/cpus=500")
    assert done.returncode == 2 and "never fits on this cluster" in done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, in MLflow's own tables
def test_a_tracked_study_begins_with_recipes_and_an_earlier_run_in_a_database(
    small: Path, tmp_path: Path, verb: Any, ray_session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = Study.read(small, ("budget/trials=2",))
    run_files = fake_runs.write_run(earlier, tmp_path / "runs", confirmed=False)
    recipe = tmp_path / "runs/small/trials/00001/recipe.yaml"
    run_files.trial(1).write_yaml(
        recipe.name, earlier.recipe_with(read_rows(tmp_path / "runs/small")[1]["params"]).to_dict()
    )
    database = f"sqlite:///{tmp_path}/studies.db"
    second = verb(
        "launch", str(small), "--set", "name=second", "--set", "budget/trials=2", "--enqueue", str(recipe),
        "--warm-start", str(tmp_path / "runs/small"),
        "--set", "space/optimizer/lr={low: 0.0499, high: 0.0501}",
    )  # fmt: skip
    assert second.returncode == 2 and "outside 0.0499 .. 0.0501" in second.stderr  # the recipe's lr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    second = verb(
        "launch", str(small), "--set", "name=second", "--set", "budget/trials=2", "--enqueue", str(recipe),
        "--warm-start", str(tmp_path / "runs/small"), "--set", f"search/storage={database}",
        "--set", "confirm={controls: [], seeds: 1}", "--set", "constraints={parameters: {max: 1e+5}}",
        "--track", "mlflow",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert "2 trials taken over from small, 0 outside left out" in second.stdout
    trials = optuna.load_study(study_name="second", storage=database).get_trials()
    assert [t.user_attrs.get("role") for t in trials] == ["warm_start", "warm_start", "paper", "enqueued"]
    assert trials[3].params == read_rows(tmp_path / "runs/small")[1]["params"]
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    assert [row["number"] for row in read_rows(tmp_path / "runs/second")] == [2, 3]
    assert all(trial.constraints == {"parameters": 78_042 - 1e5} for trial in trials)
    assert (
        "| Costs | 78,042 parameters; 12.5 M MACs" in (tmp_path / "runs/second/export/README.md").read_text()
    )

    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'raykd'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    study = runs.pop("second").info.run_id
    assert set(runs) == {"00002", "00003", "best-seed1", "paper-seed1"}
    for name, run in runs.items():
        assert run.data.tags["mlflow.parentRunId"] == study and run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "term/task")
        assert [metric.step for metric in history] == [1, 2, 3]
        assert ("test_accuracy" in run.data.metrics) == ("seed" in name)
    assert "best/student.safetensors" in {file.path for file in client.list_artifacts(study, "best")}
