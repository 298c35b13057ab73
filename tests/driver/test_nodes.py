"""Clusters of several nodes, on loopback: real raylets, one of them killed."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import tune
from ray.cluster_utils import Cluster
from ray.util import placement_group, remove_placement_group
from support.mps_control import find_daemon, write_control
from support.run_files import Start, assert_whole, read_epochs, read_rows, wait_for

from raykd.driver import mps
from raykd.driver.auto_resources import can_use_gpus, resolve_on_cluster
from raykd.driver.resources import WorkerSize, get_size, list_nodes, worker_slots
from raykd.driver.searcher import StudySearch
from raykd.driver.session import connect
from raykd.driver.tune_run import run_trials
from raykd.store.run_files import RunFiles
from raykd.study.study import Study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that runs no trials, and two nodes of one CPU each. That a node is gone is known in seconds."""
    ray.shutdown()  # of the other tests' session
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("initial_delay_ms", 1000), ("period_ms", 1000), ("failure_threshold", 5)):
            patch.setenv(f"RAY_health_check_{name}", str(value))
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        yield nodes
        nodes.shutdown()


def kill_last_node(cluster: Cluster) -> None:
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)


def test_a_gang_waits_for_what_another_job_holds_and_outlives_a_killed_node(
    cluster: Cluster, small: Path, tmp_path: Path, start_verb: Start
) -> None:
    run = tmp_path / "runs/small"
    settings = ("cluster/workers=2", "budget/trials=1", "epochs=8")
    words = (w for s in settings for w in ("--set", s))
    ray.init(cluster.address, log_to_driver=False)
    try:
        other_job = placement_group([{"CPU": 1}])
        ray.get(other_job.ready())
        driver = start_verb("launch", str(small), "--address", cluster.address, *words)
        wait_for(lambda: bool(read_rows(run)))
        time.sleep(0.2)
        assert not read_epochs(run, 0)
        remove_placement_group(other_job)
    finally:
        ray.shutdown()
    wait_for(lambda: len(read_epochs(run, 0)) >= 2, 240)
    kill_last_node(cluster)
    reached = len(read_epochs(run, 0))
    assert reached < 8
    cluster.add_node(num_cpus=1)
    assert driver.wait(240) == 0, driver.communicate()[0]
    assert_whole(run, 1, 8)
    trial_row = read_rows(run)[0]
    assert trial_row["lost"] >= 1 and trial_row["errors"] == 0
    assert "its process or machine was lost" in driver.communicate()[0]


def test_a_study_goes_on_over_the_nodes_that_are_left(
    cluster: Cluster, small: Path, tmp_path: Path, start_study: Start
) -> None:
    run = tmp_path / "runs/small"
    driver = start_study(str(small), cluster.address, "epochs=20", "budget/trials=2")
    wait_for(lambda: bool(read_epochs(run, 0)) and bool(read_epochs(run, 1)))
    running = {row["number"] for row in read_rows(run) if row["state"] == "RUNNING"}
    assert len(running) == 2  # one on each node
    kill_last_node(cluster)
    assert driver.wait(240) == 0, driver.communicate()[0]
    assert_whole(run, 2, 20)
    rows = read_rows(run)
    assert sum(row["lost"] for row in rows) == 1 and not any(row["errors"] for row in rows)


def test_two_trials_share_a_gpu_and_a_third_waits(
    cluster: Cluster, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is Ray's word only: what is tested is who is placed on it, when, and whether MPS serves."""

    def on_half_a_gpu(config: dict[str, Any]) -> None:
        """Notes how many ran at once, itself included; waits a while for a second, and then for a third."""
        note, most, end = tmp_path / f"running-{config['number']}", 0, time.time() + 10
        note.write_text("")
        while time.time() < end:
            running = len(list(tmp_path.glob("running-*")))
            end = min(end, time.time() + 2) if running > most == 1 else end
            most = max(most, running)
            time.sleep(0.05)
        note.unlink()
        mps.join()
        placements = f"{most} {ray.get_gpu_ids()} {os.environ['CUDA_VISIBLE_DEVICES']}"
        (tmp_path / f"pipes-{config['number']}").write_text(os.environ.get(mps.PIPES, ""))
        (tmp_path / str(config["number"])).write_text(placements)
        tune.report({"epoch": 3, "accuracy": 50.0, "final": True, "seconds": 1.0, "parameters": 1})

    monkeypatch.setenv("PATH", f"{write_control(tmp_path / 'bin')}:{os.environ['PATH']}")
    cluster.add_node(num_cpus=4, num_gpus=1)
    study = Study.read(small, ("cluster/gpus=0.5", "budget/trials=3"))
    run_files = RunFiles(str(tmp_path / "runs/small"))
    run_files.begin(study.to_dict())
    with connect(cluster.address):
        assert can_use_gpus() == torch.cuda.is_available()
        size = get_size(resolve_on_cluster(Study.read(small), tmp_path, False).study)
        assert size == WorkerSize(4 * size.gpus, size.gpus) or size == WorkerSize(1, 0), size  # torch's word
        searcher = StudySearch(
            study, run_files, lambda number, params: {"number": number},
            lambda: worker_slots(list_nodes(), WorkerSize(1, study.cluster.num_gpus)), lambda row: None,
        )  # fmt: skip
        with mps.serve_nodes(gpus=0.5):
            pipes = mps.find_folder()
            daemon = find_daemon(pipes)
            trainable = tune.with_resources(on_half_a_gpu, {"cpu": 1, "gpu": 0.5})
            run_trials(searcher, trainable, reuse_actors=False)
            assert daemon.is_running()
        assert {(tmp_path / f"pipes-{number}").read_text() for number in range(3)} == {str(pipes)}
        wait_for(lambda: not daemon.is_running() and not pipes.exists())
    assert [row["state"] for row in searcher.rows.values()] == ["COMPLETE"] * 3, searcher.rows
    placements = [(tmp_path / str(number)).read_text() for number in range(3)]
    assert placements[:2] == ["2 [0] 0"] * 2 and placements[2] in ("1 [0] 0", "2 [0] 0")
