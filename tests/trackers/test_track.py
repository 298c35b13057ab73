"""Trials followed by MLflow, W&B (offline) and TensorBoard, as their own readers see them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raykd.errors import UserError
from raykd.store.run_files import RunFiles
from raykd.trackers import track

FOLLOW = """
import json, sys
from raykd.store.run_files import RunFiles
from raykd.trackers.track import RunTracking
uri, names, events = sys.argv[1], sys.argv[2].split(","), json.loads(sys.argv[3])
with RunTracking(names, "small", RunFiles(uri)) as tracking:
    on_event = tracking.follow(lambda phase, details: None)
    for event in events:
        on_event(event.get("phase", "search"), event)
"""


def make_row(number: int, epochs: int, state: str) -> dict[str, Any]:
    params = {"optimizer/lr": 0.05, "method/dim": 64}
    return {"number": number, "epochs": epochs, "state": state, "params": params, "role": "", "method": "kd"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose two trials have three epochs each."""
    for number in range(2):
        rows = [
            {
                "epoch": epoch,
                "accuracy": 50.0 + epoch,
                "accuracy_raw": 49.0,
                "lr": 0.1 / epoch,
                "seconds": 1.0,
            }
            | {"images_per_second": 100.0, "terms": {"kd": 1.0 / epoch}}
            for epoch in (1, 2, 3)
        ]
        RunFiles(str(tmp_path / "run")).trial(number).write_json("epochs.json", rows)
    (tmp_path / "run/export").mkdir()
    (tmp_path / "run/export/recipe.yaml").write_text("epochs: 3\n")
    return tmp_path / "run"


def follow(run: Path, names: str, events: list[dict[str, Any]], **variables: str) -> str:
    """Follows a run in a process of its own, as a driver is one; returns what it says."""
    words = [sys.executable, "-c", FOLLOW, str(run), names, json.dumps(events)]
    done = subprocess.run(
        words, cwd=run.parent, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(
    verb: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(track.TRACKERS, "wandb", ("wandb_runs", "WandbTracker", "not_installed_here"))
    done = verb("launch", str(small), "--track", "wandb")
    assert (done.returncode, done.stderr) == (
        2, "--track wandb: not installed: pip install 'raykd[wandb]'\n",
    )  # fmt: skip
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError):
        track.check_trackers(["wandb"])


def test_without_trackers_nothing_is_loaded_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("mlflow", "wandb", "tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)  # whoever imports it fails
    with track.RunTracking([], "small", RunFiles(str(tmp_path / "nowhere"))) as tracking:
        shown: list[str] = []
        tracking.follow(lambda phase, details: shown.append(phase))("search", make_row(0, 1, "RUNNING"))
    assert shown == ["search"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, in MLflow's own tables
def test_trials_are_nested_runs_with_their_epochs_and_go_on(run: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    variables = {"MLFLOW_TRACKING_URI": uri, "WANDB_MODE": "offline"}
    first = [make_row(0, 0, "RUNNING"), make_row(0, 2, "RUNNING"), make_row(1, 1, "RUNNING")]
    last = [make_row(0, 3, "COMPLETE"), make_row(1, 2, "PRUNED")]
    retraining, confirm = RunFiles(str(run)).confirmation("best", 1), [{"phase": "confirm"}] * 2
    retraining.write_json("trial.json", {"role": "best", "seed": 1, "number": 0})
    epochs = [row | {"accuracy": None} for row in RunFiles(str(run)).epochs(0)]
    retraining.write_json("epochs.json", epochs[:2])
    follow(run, "mlflow,wandb,tensorboard", first + confirm, **variables)
    retraining.write_json("epochs.json", [*epochs[:2], epochs[2] | {"test_accuracy": 61.5}])
    follow(run, "mlflow,tensorboard", last + confirm, **variables)  # a driver that goes on

    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("raykd")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"small", "00000", "00001", "best-seed1"}
    confirmed, steps = runs["best-seed1"], [1, 2, 3]
    assert confirmed.data.metrics["test_accuracy"] == 61.5 and confirmed.info.status == "FINISHED"
    assert confirmed.data.tags["mlflow.parentRunId"] == runs["small"].info.run_id
    terms = client.get_metric_history(confirmed.info.run_id, "term/kd")
    assert [metric.step for metric in terms] == steps and "held_out_accuracy" not in confirmed.data.metrics
    study, trial = runs["small"].info.run_id, runs["00000"]
    assert trial.data.tags["mlflow.parentRunId"] == study
    assert trial.data.params == {"optimizer/lr": "0.05", "method/dim": "64", "role": ""}
    history = client.get_metric_history(trial.info.run_id, "held_out_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 51.0), (2, 52.0), (3, 53.0)]
    assert [trial.info.status, runs["00001"].info.status] == ["FINISHED", "KILLED"]
    assert runs["00001"].data.metrics["term/kd"] == 0.5
    assert [file.path for file in client.list_artifacts(study, "best")] == ["best/recipe.yaml"]

    offline = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(offline) == 4  # two trials, a retraining, and the study's for the artifact
    assert any(b"held_out_accuracy" in file.read_bytes() for file in offline)
    events = EventAccumulator(str(run / "report/live/00000"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("held_out_accuracy")] == [(1, 51), (2, 52), (3, 53)]


@pytest.mark.slow
def test_a_server_that_is_not_there_costs_a_line_and_no_study(run: Path) -> None:
    variables = {"MLFLOW_TRACKING_URI": "http" + "://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    said = follow(run, "mlflow", [make_row(0, 1, "RUNNING"), make_row(0, 3, "COMPLETE")], **variables)
    lines = [line for line in said.splitlines() if line.startswith("--track mlflow: ")]
    assert len(lines) == 1 and lines[0].endswith("; the study goes on without it")
