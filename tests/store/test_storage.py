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
from support.run_files import kill_all, wait_for

from raykd.driver.optuna_journal import StoredJournal
from raykd.errors import BadInput
from raykd.run import Run
from raykd.store import lock
from raykd.store.folder import Folder, joined, parted
from raykd.store.run_files import JOURNAL, Ledger


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
        Folder(f"{uri}&allow_bucket_creation=true").reach()
        yield uri
    moto.stop()


@pytest.fixture
def store(bucket: str, tmp_path: Path) -> str:
    """A storage on the server."""
    return joined(bucket, tmp_path.name)


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path / "place"))
    uri: str = request.getfixturevalue("store")
    return Folder(joined(uri, "place"))


def test_a_folder_keeps_what_it_is_given(folder: Folder, tmp_path: Path) -> None:
    assert folder.names() == [] and folder.sizes() == {} and not folder.exists("a.json")
    folder.remove("a.json")
    assert folder.read_json("a.json") is None
    folder.write_json("a.json", {"x": 1})
    folder.write("a.json", b'{"x": 2}')
    (folder / "below").write("b", b"12345")
    assert folder.read_json("a.json") == {"x": 2} and folder.read("below/b") == b"12345"
    assert folder.names() == ["a.json", "below"] and folder.exists("below") and folder.exists("below/b")
    assert folder.sizes() == {"a.json": 8, "below/b": 5}
    assert folder.read_every(["a.json", "none"]) == [{"x": 2}, None]
    folder.write("torn.json", b'{"x": ')
    assert folder.read_json("torn.json") is None
    folder.remove("a.json")
    assert not folder.exists("a.json") and folder.names() == ["below", "torn.json"]
    large = os.urandom(12 * 2**20)  # in several parts on an object store
    (folder / "large").write("checkpoint.pt", large)
    assert (folder / "large").read("checkpoint.pt") == large

    below = Folder((folder / "below").uri)
    assert below.name == "below" and below.read("b") == b"12345"
    assert below.parent.uri == folder.uri and below.parent.read("below/b") == b"12345"
    assert parted(joined(folder.uri, "torn.json")) == (folder.uri, "torn.json")

    with (folder / "page").filled() as path:
        (path / "figures").mkdir(parents=True)
        (path / "figures/a.png").write_bytes(b"picture")
    assert (folder / "page").sizes() == {"figures/a.png": 7}


def test_a_file_is_fetched_anew_when_it_has_changed(folder: Folder, tmp_path: Path) -> None:
    folder.write("weights", b"first")
    first = folder.fetched("weights", tmp_path / "cache")
    assert first.read_bytes() == b"first" and folder.fetched("weights", tmp_path / "cache") == first
    folder.write("weights", b"second")
    assert folder.fetched("weights", tmp_path / "cache").read_bytes() == b"second"


def test_optunas_journal_in_segments_says_what_was_told(folder: Folder, monkeypatch: Any) -> None:
    monkeypatch.setattr("raykd.driver.optuna_journal.FULL", 600)
    study = optuna.create_study(storage=JournalStorage(StoredJournal(folder)), study_name="s")
    for number in range(4):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(number, 1)
        if number < 3:
            study.tell(trial, float(number))
    assert len(folder.names()) > 2 and max(folder.sizes().values()) < 1000
    again = optuna.load_study(storage=JournalStorage(StoredJournal(folder)), study_name="s")
    assert [t.params for t in again.trials] == [t.params for t in study.trials]
    assert [t.state for t in again.trials] == [TrialState.COMPLETE] * 3 + [TrialState.RUNNING]
    again.tell(3, state=TrialState.PRUNED)
    lines = b"".join(folder.read(name) for name in folder.names()).splitlines()
    assert len(lines) == len(StoredJournal(folder).read_logs(0)) and all(json.loads(line) for line in lines)


@pytest.mark.slow
def test_a_storage_that_does_not_answer_is_one_line(
    verb: Any, small: Path, store: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("raykd.store.folder.PATIENCE", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        query = f"endpoint_override=127.0.0.1:{silent.getsockname()[1]}&scheme=http"
        for uri in (f"s3://b/x?{query}", f"gs://anonymous@b/x?{query}"):
            done = verb("status", uri)
            assert (done.returncode, done.stderr) == (
                2,
                f"{uri}: the storage did not answer within 2 seconds\n",
            )
    monkeypatch.setattr("raykd.store.folder.PATIENCE", 30)
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
    for name, seconds in (("BEAT", 0.2), ("LEASE", 2.0), ("SETTLE", 0.5)):
        monkeypatch.setattr(lock, name, seconds)
    run = Ledger(joined(store, "run"))
    with run.claim():
        assert f"process {os.getpid()} " in run.held_by() and run.state() == "running"
        with pytest.raises(BadInput, match=f"driven by process {os.getpid()} "), run.claim():
            pass
    assert run.held_by() == "" and run.state() == "interrupted" and not run.folder.exists(lock.NAME)

    dead = {"token": "another", "who": "process 1 on another since then", "at": time.time()}
    run.folder.write_json(lock.NAME, dead)
    assert run.held_by() == dead["who"]
    began = time.monotonic()
    with run.claim():
        assert time.monotonic() - began > 2 and f"process {os.getpid()} " in run.held_by()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's processes ignore it
        with pytest.raises(KeyboardInterrupt):  # another takes it: this driver is interrupted
            run.folder.write_json(lock.NAME, dead)
            time.sleep(60)
    assert run.folder.read_json(lock.NAME) == dead


@pytest.mark.slow
def test_of_two_that_claim_at_once_one_is_refused(store: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(lock, "SETTLE", 4.0)  # a loaded machine may let one of them wait
    runs = [Ledger(joined(store, "run")) for _ in range(2)]
    together, over, ended = threading.Barrier(2), threading.Event(), []

    def drive(run: Ledger) -> None:
        together.wait()
        try:
            with run.claim():
                ended.append("drove")
                over.wait(60)  # until the other has given up, however late it comes
        except BadInput:
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
    small: Path, tmp_path: Path, store: str, launched: Any, verb: Any
) -> None:
    run = joined(store, "small")
    ledger = Ledger(run)
    teacher = "recipe/teacher={net: resnet14, train: {epochs: 1, optimizer: {batch_size: 32}}}"
    settings = ("cluster/cpus=2", "budget/trials=2", "epochs=8", teacher)
    words = (word for setting in settings for word in ("--set", setting))
    first = launched("launch", str(small), "--storage", store, *words)
    wait_for(lambda: len(ledger.epochs(0)) >= 1)
    other = verb("resume", run)
    assert other.returncode == 2 and f"driven by process {first.pid} on" in other.stderr
    wait_for(lambda: len(ledger.epochs(1)) >= 2)
    kill_all(first)
    done = ledger.epochs(1)[:-1]  # the last one's checkpoint may not have been written
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # nothing of the run lies here

    last = verb("resume", run)
    assert last.returncode == 0, last.stderr + last.stdout
    assert ledger.epochs(1)[: len(done)] == done  # went on from the checkpoint
    stands = json.loads(verb("status", run, "--json").stdout)
    assert stands["state"] == "finished" and stands["trials"]["complete"] == 2
    told = optuna.load_study(
        study_name="small", storage=JournalStorage(StoredJournal(ledger.folder / JOURNAL))
    ).get_trials()
    assert [t.state for t in told] == [TrialState.COMPLETE] * 2
    assert [sorted(t.intermediate_values) for t in told] == [list(range(1, 9))] * 2
    files = ledger.folder.sizes()
    assert {"report/index.html", "export/recipe.yaml", "export/student.safetensors"} <= set(files)
    assert not [name for name in files if name.endswith((".pt", lock.NAME))]
    assert len(ledger.storage.sizes()) == len(files) + 1  # the teacher's weights, beside the run
    exported = verb("export", run, "out")
    assert exported.returncode == 0 and (tmp_path / "out/student.safetensors").exists()
    assert verb("report", run, "--out", "page").returncode == 0 and (tmp_path / "page/index.html").exists()
    assert Run.open(run).best().method.name == "dcd"
