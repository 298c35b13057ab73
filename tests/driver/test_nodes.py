"""Clusters of several nodes, on loopback: real raylets, one of them killed."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest
import ray
import torch
import yaml
from ray import tune
from ray.cluster_utils import Cluster
from ray.util import placement_group, remove_placement_group
from support.mps_control import find_daemon, write_control
from support.run_files import Start, assert_whole, read_epochs, read_rows, wait_for
from support.small_trainer import CPU, comparable_metrics
from support.two_nodes import kill_last_node, start_two_nodes

from raykd import plugins
from raykd.driver import mps
from raykd.driver.auto_resources import can_use_gpus, resolve_on_cluster
from raykd.driver.resources import WorkerSize, get_size, list_nodes, worker_slots
from raykd.driver.searcher import StudySearch
from raykd.driver.session import connect
from raykd.driver.tune_run import run_trials
from raykd.store.run_files import RunFiles
from raykd.study.study import Study
from raykd.training import trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that runs no trials, and two nodes of one CPU each. That a node is gone is known in seconds."""
    ray.shutdown()  # of the other tests' session
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("initial_delay_ms", 1000), ("period_ms", 1000), ("failure_threshold", 5)):
            patch.setenv(f"RAY_health_check_{name}", str(value))
        with start_two_nodes() as nodes:
            yield nodes


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


GRACE_S = 120  # that a machine is left after its notice, as on AWS
WAIT_S = 600  # on a crowded machine
COUNTED = """
import time
from pathlib import Path
from typing import Literal
from raykd.methods import kd

class Config(kd.Config):
    name: Literal["counted"] = "counted"

class Counted(kd.Method):
    config: Config

    def forward(self, batch):
        with open("FOLDER/images", "a") as file:
            file.write("." * len(batch.student.logits))
        time.sleep(0.5 * Path("FOLDER/slow").exists())
        return super().forward(batch)

methods = {"counted": Counted}
"""
LAUNCH = """
import sys
from raykd import plugins
from raykd.driver.launch import launch
from raykd.study.study import Study
plugins.use(plugins.read_files([sys.argv[3]]))
study = Study.read(sys.argv[1], tuple(sys.argv[4:]))
launch(study, address=sys.argv[2], on_event=lambda *event: print(event))
"""
IMAGES, EPOCHS, BATCH = 160, 2, 4


class SpotRun:
    """A study of one slow trial, whose images are counted, on a cluster with a node that is taken away."""

    def __init__(self, cluster: Cluster, small: Path, tmp_path: Path, start_python: Start) -> None:
        self.cluster, self.small, self.folder, self._start = cluster, small, tmp_path, start_python
        self.run, self.trial = tmp_path / "runs/small", tmp_path / "runs/small/trials/00000"
        (tmp_path / "slow").write_text("")
        (tmp_path / "counted.py").write_text(COUNTED.replace("FOLDER", str(tmp_path)))

    def start_node(self) -> "Popen[str]":
        """Returns a node of one CPU, as spot.sh starts it, once it has joined."""
        joined, ray_cli = len(list_nodes()), str(Path(sys.executable).with_name("ray"))
        node = self._start(ray_cli, "start", "--block", "--num-cpus=1", f"--address={self.cluster.address}")
        wait_for(lambda: len(list_nodes()) > joined)
        return node

    def launch(self, *settings: str) -> "Popen[str]":
        """Returns the driver, once its trial trains."""
        words = (
            f"data/images={IMAGES * 5 // 4}",
            f"epochs={EPOCHS}",
            f"optimizer/batch_size={BATCH}",
            "method={name: counted}",
        )
        words = (*words, "budget/trials=1", "cluster/cpus=1", *settings)
        plugin = str(self.folder / "counted.py")
        driver = self._start("-c", LAUNCH, str(self.small), self.cluster.address, plugin, *words)
        wait_for(lambda: self.count_images() > 0 or driver.poll() is not None, WAIT_S)
        assert driver.poll() is None, driver.communicate()[0]
        return driver

    def count_images(self) -> int:
        images = self.folder / "images"
        return images.stat().st_size if images.exists() else 0

    def read_provenance(self) -> dict[str, Any]:
        return yaml.safe_load((self.trial / "provenance.json").read_text())

    def take_away(self, node: "Popen[str]") -> None:
        """In the middle of an epoch. Ray ends the node when nothing runs there any longer."""
        before = self.count_images()
        wait_for(lambda: self.count_images() >= before + 2 * BATCH)
        node.send_signal(signal.SIGTERM)
        began = time.monotonic()
        node.wait(GRACE_S + 60)
        assert time.monotonic() - began < GRACE_S
        (self.folder / "slow").unlink()

    def train_undisturbed(self, folder: Path) -> None:
        """Trains the trial's recipe in this process."""
        recipe = yaml.safe_load((self.trial / "recipe.yaml").read_text())
        teachers = (str(self.folder / "teacher.pth"),)
        sources = plugins.read_files([self.folder / "counted.py"])
        try:
            job = trial.Job(recipe, str(folder), teachers, "unused", False, 1, plugins=sources)
            trial.run(job, lambda row: None, CPU)
        finally:
            plugins.use({})

    def assert_nothing_redone(self, driver: "Popen[str]") -> None:
        """Every image of every epoch was trained on once, and the machine's loss is no error."""
        output = driver.communicate(timeout=WAIT_S)[0]
        assert driver.returncode == 0 and "its machine is about to be taken away" in output, output
        assert_whole(self.run, 1, EPOCHS)
        (row,) = read_rows(self.run)
        assert (row["lost"], row["errors"]) == (1, 0)
        assert self.count_images() == EPOCHS * IMAGES


@pytest.fixture
def spot(
    cluster: Cluster, small: Path, tmp_path: Path, start_python: Start, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SpotRun]:
    monkeypatch.setenv("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", str(GRACE_S))
    ray.init(cluster.address, log_to_driver=False)
    yield SpotRun(cluster, small, tmp_path, start_python)
    ray.shutdown()


@pytest.mark.timeout(1800)
def test_a_trial_writes_its_state_at_a_nodes_notice_and_goes_on_elsewhere(spot: SpotRun) -> None:
    """`ray start --block` gets SIGTERM; the student is an undisturbed one's."""
    other_job = placement_group([{"CPU": 1}] * int(ray.available_resources()["CPU"]))
    ray.get(other_job.ready())
    node = spot.start_node()
    driver = spot.launch()
    worker = int(spot.read_provenance()["worker"].split()[1])
    assert worker in [child.pid for child in psutil.Process(node.pid).children(recursive=True)]
    remove_placement_group(other_job)
    spot.take_away(node)
    spot.assert_nothing_redone(driver)
    assert int(spot.read_provenance()["worker"].split()[1]) != worker
    whole = spot.folder / "whole"
    spot.train_undisturbed(whole)
    rows, whole_rows = (yaml.safe_load((x / "epochs.json").read_text()) for x in (spot.trial, whole))
    assert [*map(comparable_metrics, rows)] == [*map(comparable_metrics, whole_rows)]
    student, whole_student = ((x / "student.safetensors").read_bytes() for x in (spot.trial, whole))
    assert student == whole_student


@pytest.mark.timeout(1800)
def test_an_elastic_trial_ends_with_the_workers_that_are_left(spot: SpotRun) -> None:
    for node in spot.cluster.list_all_nodes()[1:]:  # whatever other tests have left
        spot.cluster.remove_node(node)
    spot.cluster.add_node(num_cpus=1)
    wait_for(lambda: [node.get("CPU", 0) for node in list_nodes()] in ([0, 1], [1, 0]))
    spot_node = spot.start_node()
    driver = spot.launch("cluster/workers={min: 1, max: 2}")
    assert spot.read_provenance()["workers"] == 2
    spot.take_away(spot_node)
    spot.assert_nothing_redone(driver)
    assert spot.read_provenance()["workers"] == 1
