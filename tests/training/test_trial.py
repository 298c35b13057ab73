"""A trial's files: whichever write a kill falls on, all are there after a resume."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.small_trainer import comparable_metrics, recipe
from support.tape import Tape

from raykd.models import make
from raykd.store import file_names
from raykd.store.folder import Folder
from raykd.training import analysis, failure, trial
from raykd.training import trainer as trainer_module
from raykd.training.graphs import GRAPH, Graphs

CPU = torch.device("cpu")
NUM_EPOCHS = 2
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "LARGE_BANK_BYTES", 1000)  # so that banks.pt is written
    monkeypatch.setattr(analysis, "SPEED_SECONDS", 0.0)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.manual_seed(5)
    torch.save(make("resnet8", 10).state_dict(), path)
    return path


def run(folder: Path, teacher: Path) -> list[Row]:
    """A retraining of few images; the epochs that it reported."""
    settings = recipe(
        data={"name": "digits", "images": 32, "holdout": 0.0},
        teacher={"net": "resnet8", "weights": str(teacher)},
        method={"name": "crd", "negatives": 16},
        epochs=NUM_EPOCHS,
        optimizer={"batch_size": 16},
    )
    job = trial.Job(settings.to_dict(), str(folder), (str(teacher),), "unused", False, 1, test=True)
    reported: list[Row] = []
    trial.run(job, reported.append, CPU)
    return reported


def copy_at_writes(
    folder: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, bytes, Path]]:
    """Runs a trial; for each write its name, its data, and a copy of the folder as it was before it."""
    writes: list[tuple[str, bytes, Path]] = []
    write = Folder.write

    def copy_and_write(self: Folder, name: str, data: bytes) -> None:
        copy = folder.with_name(f"before-{len(writes)}")
        folder.mkdir(exist_ok=True)
        shutil.copytree(folder, copy)
        writes.append((name, data, copy))
        write(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", copy_and_write)
        run(folder, teacher)
    return writes


def read_files(folder: Path) -> dict[str, Any]:
    """All that a trial leaves, less what no two runs share: times, speeds, the process."""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["epochs.json"] = [*map(comparable_metrics, json.loads(files["epochs.json"]))]
    files["analysis.json"] = json.loads(files["analysis.json"]) | {"images_per_second": None}
    files["provenance.json"] = sorted(json.loads(files["provenance.json"]))
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    files["checkpoint.pt"] = [comparable_metrics(row) for row in checkpoint["rows"]]
    return files


@pytest.mark.slow
@pytest.mark.parametrize("torn_name", ["{}.partial-1", "{}"], ids=["disk", "HDFS"])
def test_a_trial_killed_at_any_write_leaves_all_that_it_owes(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, torn_name: str
) -> None:
    """Killed in the middle of a write: on a disk half a file lies beside, on HDFS in its place."""
    writes = copy_at_writes(tmp_path / "whole", teacher, monkeypatch)
    assert [name for name, _, _ in writes] == [
        *("recipe.yaml", "provenance.json", "environment.json", "preprocessing.json"),
        *("banks.pt", "checkpoint.pt", "epochs.json"),
        *("checkpoint.pt", "student.safetensors", "analysis.json", "epochs.json"),
    ]
    whole = read_files(tmp_path / "whole")
    for name, data, folder in writes[3:]:  # before training all writes are alike
        done = Folder(str(folder)).read_json("epochs.json") or []
        (folder / torn_name.format(name)).write_bytes(data[: len(data) // 2])
        reported = run(folder, teacher)
        assert read_files(folder) == whole, name
        epochs = [row["epoch"] for row in reported]
        assert reported[-1]["final"] and {*range(len(done) + 1, NUM_EPOCHS + 1)} <= {*epochs}, name


def test_the_level_of_each_graph_stands_in_the_provenance(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))  # empty: the teacher answers every view
    monkeypatch.setattr(trial, "start_graphs", lambda device: Graphs(Tape))
    run(tmp_path / "t", teacher)
    levels = Folder(str(tmp_path / "t")).read_json("provenance.json")["graphs"]
    assert levels == dict.fromkeys(("views", "teacher", "step"), GRAPH)


@pytest.mark.slow
def test_an_epoch_whose_report_failed_is_reported_again_and_not_trained_again(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "t", teacher)
    monkeypatch.setattr(trainer_module.Trainer, "train_step", None)
    monkeypatch.setattr(trial, "analyse", None)
    (row,) = run(tmp_path / "t", teacher)
    assert row["epoch"] == NUM_EPOCHS and row["final"] and "test_accuracy" in row


def test_a_worker_that_is_gone_is_known_by_gloos_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when Gloo says it in other words."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store, timeout = dist.HashStore(), timedelta(seconds=60)
    with ThreadPoolExecutor(2) as pool:
        ranks = [pool.submit(dist.ProcessGroupGloo, store, rank, 2, timeout) for rank in range(2)]
        groups = [rank.result() for rank in ranks]
    del ranks, groups[1]
    with pytest.raises(RuntimeError) as error:
        groups[0].allreduce([torch.ones(3)]).wait()
    assert failure.is_collective_failure(error.value)
    assert not failure.is_collective_failure(RuntimeError("shapes do not match"))


NCCL_SAYS = (
    "NCCL error in: NCCLUtils.cpp:94, {}, NCCL version 2.27.5\n{}: as NCCL explains it.\nLast error:\n{}"
)


@pytest.mark.parametrize(
    ("words", "is_gone"),
    [
        (
            ("invalid usage", "ncclInvalidUsage", "Duplicate GPU detected : rank 0 and rank 1 both on 1b"),
            False,
        ),
        (("unhandled cuda error", "ncclUnhandledCudaError", "Cuda failure 2 'out of memory'"), False),
        (
            ("remote process exited", "ncclRemoteError", "socketProgress: Connection closed by remote peer"),
            True,
        ),
        (("unhandled system error", "ncclSystemError", "recv: Connection reset by peer"), True),
    ],
)
def test_a_mistake_in_the_use_of_nccl_is_no_lost_worker(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str, str], is_gone: bool
) -> None:
    def fail(*args: Any) -> None:
        raise dist.DistBackendError(NCCL_SAYS.format(*words))

    for name in ("train_step", "__init__"):  # when the workers meet, and later
        monkeypatch.setattr(trainer_module.Trainer, name, fail)
        with pytest.raises(RuntimeError):
            run(tmp_path / name, teacher)
        failure = Folder(str(tmp_path / name)).read_json(file_names.FAILURE)
        assert (failure is None) == is_gone
        assert is_gone or (failure["kind"] == "error" and words[2] in failure["reason"])


def test_an_unknown_failure_before_the_first_step_is_no_lost_worker(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise dist.DistBackendError(
            "NCCL error in: x.cpp:1\nncclSystemError: ...\nLast error:\nno socket interface"
        )

    monkeypatch.setattr(trainer_module.Trainer, "__init__", fail)
    with pytest.raises(RuntimeError):
        run(tmp_path / "t", teacher)
    failure = Folder(str(tmp_path / "t")).read_json(file_names.FAILURE)
    assert failure["reason"] == "RuntimeError: NCCL did not start: no socket interface"
