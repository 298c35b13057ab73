"""A run obeys the study's cap on its files, and a full disk loses nothing."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.tune.search import Searcher
from support.run_files import ALL_CPUS, wait_for

from raykd.driver.disk_budget import DiskBudget
from raykd.driver.launch import resume
from raykd.driver.optuna_journal import truncate_torn_entry
from raykd.driver.searcher import StudySearch
from raykd.store import file_names
from raykd.store.folder import StorageError
from raykd.store.run_files import RunFiles
from raykd.study.study import Study
from raykd.training import trial


def write_trial(run_files: RunFiles, number: int, accuracy: float, megabytes: float) -> dict[str, Any]:
    run_files.trial(number).write(file_names.STUDENT, b"x" * int(megabytes * 10**6))
    return {"number": number, "state": "COMPLETE", "accuracy": accuracy, "ended": 10.0 + number}


def test_over_the_cap_the_oldest_students_go_and_the_best_stays(small: Path, tmp_path: Path) -> None:
    run_files = RunFiles(str(tmp_path / "run"))
    disk_budget = DiskBudget(Study.read(small, ("budget/disk_gb=0.0041",)), run_files)
    rows = [write_trial(run_files, number, accuracy, 1) for number, accuracy in ((0, 50), (1, 70), (2, 60))]
    assert disk_budget.make_room(rows, []) == "" and len(run_files.folder.file_sizes()) == 3
    run_files.trial(3).write("checkpoint.pt", b"x" * 10**6)  # under way: 1 MB, and so much for the next
    run_files.trial(4).write("recipe.yaml", b"x")  # under way, without a checkpoint yet
    assert disk_budget.make_room(rows, [3, 4]) == ""
    assert [number for number in range(3) if run_files.trial(number).exists(file_names.STUDENT)] == [1]
    run_files.confirmation("ce", 1).write_json("trial.json", {"role": "ce", "seed": 1})
    run_files.confirmation("ce", 1).write(file_names.STUDENT, b"x" * 10**6)
    assert disk_budget.make_room(rows, [3, 4]) == ""
    assert not run_files.confirmation("ce", 1).exists(file_names.STUDENT)
    reason = disk_budget.make_room(rows, [3, 4], num_new=2)
    assert reason.startswith("budget/disk_gb = 0.0041 is used up: the run takes 0.002 GB")
    assert run_files.trial(1).exists(file_names.STUDENT)


def test_a_torn_journal_is_cut_after_its_last_whole_entry(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert truncate_torn_entry(path) == path and not path.exists()
    for entries, torn_entry in ((b"", b'{"op'), (b'{"a":1}\n{"b":2}\n', b'{"c":'), (b'{"a":1}\n', b"")):
        path.write_bytes(entries + torn_entry)
        assert truncate_torn_entry(path).read_bytes() == entries


def test_a_study_waits_for_room_then_stops_and_goes_on_with_a_larger_cap(small: Path, tmp_path: Path) -> None:
    run_files = RunFiles(str(tmp_path / "run"))
    run_files.begin(Study.read(small).to_dict())

    def open_search(gigabytes: float) -> StudySearch:
        study = Study.read(small, (f"budget/disk_gb={gigabytes}", "budget/trials=6"))
        return StudySearch(study, run_files, lambda number, params: params, lambda: 2, lambda row: None)

    def train(searcher: StudySearch, name: str, number: int) -> None:
        run_files.trial(number).write("checkpoint.pt", b"x" * 3_000_000)
        result = {"epoch": 3, "accuracy": 50.0, "final": True, "seconds": 1.0, "parameters": 1}
        searcher.record_epoch(name, result)

    def end(searcher: StudySearch, name: str, number: int) -> None:
        run_files.trial(number).write(file_names.STUDENT, b"x" * 1_000_000)
        searcher.on_trial_complete(name, {"final": True})

    searcher = open_search(0.0045)
    assert isinstance(searcher.suggest("a"), dict)
    train(searcher, "a", 0)
    assert searcher.suggest("b") is None and not searcher.is_done()  # 3 MB are used, as many would come
    end(searcher, "a", 0)
    assert isinstance(searcher.suggest("b"), dict)  # the checkpoint is gone
    train(searcher, "b", 1)
    end(searcher, "b", 1)
    assert isinstance(searcher.suggest("c"), dict)
    assert [run_files.trial(number).exists(file_names.STUDENT) for number in range(2)] == [True, False]
    run_files.folder.write("other", b"x" * 2_000_000)
    searcher.on_trial_complete("c", {"final": False})
    assert searcher.suggest("d") is None and searcher.suggest("d") == Searcher.FINISHED
    assert searcher.is_done() and searcher.stop_reason.startswith("budget/disk_gb = 0.0045 is used up")
    assert not searcher.end_reason and searcher.num_ended() == 3
    assert isinstance(open_search(0.1).suggest("d"), dict)


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 80 MB and 500 files; needs the right to mount one."""
    path = tmp_path / "little"
    path.mkdir()
    mount_words = ("mount", "-t", "tmpfs", "-o", "size=80m,nr_inodes=500", "tmpfs", str(path))
    if subprocess.run(mount_words, check=False).returncode:
        pytest.skip("no right to mount a disk")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["No space left on device", "Read-only file system"])
def test_a_disk_without_an_inode_or_read_only_is_one_line_and_nothing_begins(
    reason: str, small: Path, little_disk: Path, verb: Any
) -> None:
    if reason.startswith("No space"):
        with pytest.raises(OSError, match=reason):
            for number in range(1000):
                (little_disk / str(number)).touch()
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(little_disk)], check=True)
    before = sorted(little_disk.iterdir())
    done = verb("launch", str(small), "--storage", str(little_disk))
    assert done.returncode == 1 and reason in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(little_disk.iterdir()) == before
    assert verb("plan", str(small)).returncode == 0


def fill(disk: Path, free: int) -> Path:
    """A file that leaves so many bytes free."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * (shutil.disk_usage(disk).free - free))
    return ballast


@pytest.mark.slow
def test_a_trial_on_a_full_disk_is_tried_again_when_there_is_room(small: Path, little_disk: Path) -> None:
    run_files = RunFiles(str(little_disk / "run"))
    study = Study.read(small, ("method={name: ce}",))
    run_files.begin(study.to_dict())
    searcher = StudySearch(study, run_files, lambda number, params: params, lambda: 1, lambda row: None)
    assert isinstance(searcher.suggest("a"), dict)
    folder = run_files.trial(0)
    job = trial.Job(study.recipe.to_dict(), folder.uri, (), "unused", False, 1)
    ballast = fill(little_disk, 100_000)
    with pytest.raises(StorageError, match=r"checkpoint.pt: [\d,]+ bytes could not be written \(No space"):
        trial.run(job, lambda row: None, torch.device("cpu"))
    assert folder.read_json("failure.json")["kind"] == "storage"
    assert "checkpoint.pt" not in folder.list_names()
    searcher.on_trial_complete("a", error=True)
    assert searcher.rows[0]["state"] == "WAITING" and searcher.rows[0]["errors"] == 0
    assert searcher.suggest("a") is None
    assert searcher.stop_reason.startswith(f"the disk of {little_disk}/run is full")
    ballast.unlink()
    epochs: list[int] = []
    trial.run(job, lambda row: epochs.append(row["epoch"]), torch.device("cpu"))
    assert epochs == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_disk_without_a_byte_ends_the_study_with_one_line_and_it_goes_on_later(
    small: Path, little_disk: Path, start_verb: Any, ray_session: str
) -> None:
    run = RunFiles(str(little_disk / "small"))
    settings = ("--set", ALL_CPUS, "--set", "budget/trials=1", "--set", "epochs=5")
    where = ("--storage", str(little_disk), "--address", ray_session)
    driver = start_verb("launch", str(small), *where, *settings)
    wait_for(lambda: len(run.epochs(0)) >= 2, 250)
    ballast = fill(little_disk, 0)
    assert driver.wait(120) == 1
    output = driver.communicate()[0]
    last_line = output.splitlines()[-1]
    assert "could not be written (No space left" in last_line or "No space left on device" in last_line
    assert "Traceback" not in output
    assert run.state() == "interrupted"
    ballast.unlink()
    resume(run.folder.uri)
    rows = run.trials()
    assert [row["state"] for row in rows] == ["COMPLETE"] and rows[0]["errors"] == 0
    assert [e["epoch"] for e in run.epochs(0)] == list(range(1, 6))
