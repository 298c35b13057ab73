"""Runs on a disk and on an object store: one contract for folders, a study that moves between machines."""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from moto.server import ThreadedMotoServer
from optuna.storages import JournalStorage
from optuna.trial import TrialState
from support.run_files import ALL_CPUS, kill_all, wait_for

from raykd.driver.launch import resume
from raykd.driver.optuna_journal import StoredJournal
from raykd.errors import UserError
from raykd.run import Run
from raykd.store import file_names, lock
from raykd.store.folder import Folder, join_uri, split_uri
from raykd.store.run_files import RunFiles


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of an S3-compatible server on loopback."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "raykd")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        uri = f"s3://raykd?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        Folder(f"{uri}&allow_bucket_creation=true").check_reachable()
        yield uri
    moto.stop()


@pytest.fixture
def store(bucket: str, tmp_path: Path) -> str:
    """A storage on the server."""
    return join_uri(bucket, tmp_path.name)


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path / "place"))
    uri: str = request.getfixturevalue("store")
    return Folder(join_uri(uri, "place"))


@pytest.mark.slow
def test_a_folder_keeps_what_it_is_given(folder: Folder, tmp_path: Path) -> None:
    assert folder.list_names() == [] and folder.file_sizes() == {} and not folder.exists("a.json")
    folder.remove("a.json")
    assert folder.read_json("a.json") is None
    folder.write_json("a.json", {"x": 1})
    folder.write("a.json", b'{"x": 2}')
    (folder / "below").write("b", b"12345")
    assert folder.read_json("a.json") == {"x": 2} and folder.read("below/b") == b"12345"
    assert folder.list_names() == ["a.json", "below"] and folder.exists("below") and folder.exists("below/b")
    assert folder.file_sizes() == {"a.json": 8, "below/b": 5}
    assert folder.read_json_files(["a.json", "none"]) == [{"x": 2}, None]
    folder.write("torn.json", b'{"x": ')
    assert folder.read_json("torn.json") is None
    folder.remove("a.json")
    assert not folder.exists("a.json") and folder.list_names() == ["below", "torn.json"]
    large = os.urandom(12 * 2**20)  # in several parts on an object store
    (folder / "large").write("checkpoint.pt", large)
    assert (folder / "large").read("checkpoint.pt") == large

    below = Folder((folder / "below").uri)
    assert below.name == "below" and below.read("b") == b"12345"
    assert below.parent.uri == folder.uri and below.parent.read("below/b") == b"12345"
    assert split_uri(join_uri(folder.uri, "torn.json")) == (folder.uri, "torn.json")

    with (folder / "page").staging_dir() as path:
        (path / "figures").mkdir(parents=True)
        (path / "figures/a.png").write_bytes(b"picture")
    assert (folder / "page").file_sizes() == {"figures/a.png": 7}


def test_a_file_is_fetched_anew_when_it_has_changed(folder: Folder, tmp_path: Path) -> None:
    folder.write("weights", b"first")
    first = folder.fetch("weights", tmp_path / "cache")
    assert first.read_bytes() == b"first" and folder.fetch("weights", tmp_path / "cache") == first
    folder.write("weights", b"second")
    assert folder.fetch("weights", tmp_path / "cache").read_bytes() == b"second"


def test_optunas_journal_in_segments_keeps_what_was_written(folder: Folder, monkeypatch: Any) -> None:
    monkeypatch.setattr("raykd.driver.optuna_journal.SEGMENT_BYTES", 600)
    study = optuna.create_study(storage=JournalStorage(StoredJournal(folder)), study_name="s")
    for number in range(4):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(number, 1)
        if number < 3:
            study.tell(trial, float(number))
    assert len(folder.list_names()) > 2 and max(folder.file_sizes().values()) < 1000
    again = optuna.load_study(storage=JournalStorage(StoredJournal(folder)), study_name="s")
    assert [t.params for t in again.trials] == [t.params for t in study.trials]
    assert [t.state for t in again.trials] == [TrialState.COMPLETE] * 3 + [TrialState.RUNNING]
    again.tell(3, state=TrialState.PRUNED)
    lines = b"".join(folder.read(name) for name in folder.list_names()).splitlines()
    assert len(lines) == len(StoredJournal(folder).read_logs(0)) and all(json.loads(line) for line in lines)


@pytest.mark.slow
def test_a_storage_that_does_not_answer_is_one_line(
    verb: Any, small: Path, store: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("raykd.store.folder.TIMEOUT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        query = f"endpoint_override=127.0.0.1:{silent.getsockname()[1]}&scheme=http"
        for uri in (f"s3://b/x?{query}", f"gs://anonymous@b/x?{query}"):
            done = verb("status", uri)
            assert (done.returncode, done.stderr) == (
                2,
                f"{uri}: the storage did not answer within 2 seconds\n",
            )
    monkeypatch.setattr("raykd.store.folder.TIMEOUT_S", 30)
    nowhere = store.replace("s3://", "s3://no-").replace("&allow_bucket_creation=true", "")
    done = verb("launch", str(small), "--storage", nowhere)
    assert done.returncode == 2 and done.stderr.endswith(
        "there is no 'no-" + nowhere[8:].split("/")[0] + "'\n"
    )
    done = verb("status", "s3://b/x?regoin=here")
    assert done.returncode == 2 and "Unexpected query parameter in S3 URI: 'regoin'" in done.stderr
    done = verb("status", "foo://b/x")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_claim_on_an_object_store_is_held_while_it_is_renewed(store: str, monkeypatch: Any) -> None:
    for name, seconds in (("RENEW_INTERVAL", 0.2), ("LEASE_DURATION", 2.0), ("CONFIRM_DELAY", 0.5)):
        monkeypatch.setattr(lock, name, seconds)
    run = RunFiles(join_uri(store, "run"))
    with run.hold_lock():
        assert f"process {os.getpid()} " in run.lock_holder() and run.state() == "running"
        with pytest.raises(UserError, match=f"driven by process {os.getpid()} "), run.hold_lock():
            pass
    assert run.lock_holder() == "" and run.state() == "interrupted" and not run.folder.exists(file_names.LOCK)

    dead = {"token": "another", "holder": "process 1 on another since then", "time": time.time()}
    run.folder.write_json(file_names.LOCK, dead)
    assert run.lock_holder() == dead["holder"]
    began = time.monotonic()
    with run.hold_lock():
        assert time.monotonic() - began > 2 and f"process {os.getpid()} " in run.lock_holder()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's processes ignore it
        with pytest.raises(KeyboardInterrupt):  # another takes it: this driver is interrupted
            run.folder.write_json(file_names.LOCK, dead)
            time.sleep(60)
    assert run.folder.read_json(file_names.LOCK) == dead


@pytest.mark.slow
def test_of_two_that_claim_at_once_one_is_refused(store: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(lock, "CONFIRM_DELAY", 4.0)  # a loaded machine may let one of them wait
    runs = [RunFiles(join_uri(store, "run")) for _ in range(2)]
    together, over, ended = threading.Barrier(2), threading.Event(), []

    def drive(run: RunFiles) -> None:
        together.wait()
        try:
            with run.hold_lock():
                ended.append("drove")
                over.wait(60)  # until the other has given up, however late it comes
        except UserError:
            ended.append("refused")
            over.set()

    both = [threading.Thread(target=drive, args=(run,)) for run in runs]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(ended) == ["drove", "refused"]


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_study_on_an_object_store_goes_on_from_another_machine(
    small: Path, tmp_path: Path, store: str, start_verb: Any, verb: Any, ray_session: str
) -> None:
    run = join_uri(store, "small")
    run_files = RunFiles(run)
    teacher = "recipe/teacher={net: resnet14, train: {epochs: 1, optimizer: {batch_size: 32}}}"
    settings = (ALL_CPUS, "budget/trials=2", "epochs=4", teacher)
    words = (word for setting in settings for word in ("--set", setting))
    first = start_verb("launch", str(small), "--storage", store, *words)
    wait_for(lambda: len(run_files.epochs(0)) >= 1)
    other = verb("resume", run)
    assert other.returncode == 2 and f"driven by process {first.pid} on" in other.stderr
    wait_for(lambda: len(run_files.epochs(1)) >= 2)
    kill_all(first)
    done = run_files.epochs(1)[:-1]  # the last one's checkpoint may not have been written
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # nothing of the run lies here

    resume(run)
    assert verb("report", run).returncode == 0
    assert run_files.epochs(1)[: len(done)] == done  # went on from the checkpoint
    status = json.loads(verb("status", run, "--json").stdout)
    assert status["state"] == "finished" and status["trials"]["complete"] == 2
    study_trials = optuna.load_study(
        study_name="small", storage=JournalStorage(StoredJournal(run_files.folder / file_names.JOURNAL))
    ).get_trials()
    assert [t.state for t in study_trials] == [TrialState.COMPLETE] * 2
    assert [sorted(t.intermediate_values) for t in study_trials] == [list(range(1, 5))] * 2
    files = run_files.folder.file_sizes()
    assert "report/index.html" in files
    assert not [name for name in files if name.endswith((".pt", file_names.LOCK))]
    assert len(run_files.storage.file_sizes()) == len(files) + 1  # the teacher's weights, beside the run
    exported = verb("export", run, "out")
    assert exported.returncode == 0 and (tmp_path / "out/student.safetensors").exists()
    assert Run.open(run).best().method.name == "dcd"
