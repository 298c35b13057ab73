"""What others read of a run: optuna-dashboard its journal, TensorBoard its folder. The real programs."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import fake_runs

from raykd.report.write import write_report
from raykd.store.run_files import RunFiles

pytestmark = pytest.mark.slow
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    return fake_runs.write_run(fake_runs.make_study("shown", trials=6), tmp_path_factory.mktemp("runs"))


@contextmanager
def serve(command: list[str], port: int, log: Path) -> Iterator[Callable[[str], Any]]:
    """A program that serves on loopback while the block runs; gives what fetches JSON from it."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)

    def get_json(path: str) -> Any:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT_S) as answer:
                    return json.load(answer)
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)

    try:
        yield get_json
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_optuna_dashboard_shows_the_study_and_its_trials(run: RunFiles, tmp_path: Path) -> None:
    port = free_port()
    program = str(Path(sys.executable).parent / "optuna-dashboard")
    command = [program, "--host", "127.0.0.1", "--port", str(port), str(run.journal_path())]
    with serve(command, port, tmp_path / "log") as get_json:
        [study] = get_json("/api/studies")["study_summaries"]
        assert study["study_name"] == "shown"
        shown = get_json(f"/api/studies/{study['study_id']}?after=0")["trials"]
    assert [(t["number"], t["state"].upper()) for t in shown] == [
        (row["number"], row["state"]) for row in run.trials()
    ]
    assert {p["name"] for p in shown[0]["params"]} == set(run.trials()[0]["params"])


def test_tensorboard_shows_the_epochs_of_every_trial(run: RunFiles, tmp_path: Path) -> None:
    write_report([run.folder.uri])
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--logdir", run.folder.uri, "--load_fast", "false"]
    with serve(command, port, tmp_path / "log") as get_json:
        deadline = time.monotonic() + TIMEOUT_S
        expected_runs = {
            f"report/tensorboard/trial-{r['number']:05d}" for r in run.trials() if run.epochs(r["number"])
        }
        while not expected_runs <= (tags := get_json("/data/plugin/scalars/tags")).keys():
            assert time.monotonic() < deadline, f"TensorBoard shows {sorted(tags)}"
            time.sleep(0.2)
        assert {"held_out_accuracy", "lr", "term/contrast"} <= tags["report/tensorboard/trial-00000"].keys()
        query = "tag=held_out_accuracy&run=report/tensorboard/trial-00000"
        shown = get_json(f"/data/plugin/scalars/scalars?{query}")
    epochs = [(row["epoch"], row["accuracy"]) for row in run.epochs(0)]
    assert [step for _, step, _ in shown] == [epoch for epoch, _ in epochs]
    assert [value for _, _, value in shown] == pytest.approx([accuracy for _, accuracy in epochs], rel=1e-6)
