"""A run obeys the study's cap on its files, and a full disk loses nothing."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raykd.driver.disk import STUDENT, Disk
from raykd.driver.journal import mended
from raykd.ledger import Ledger
from raykd.study import Study


def told(ledger: Ledger, number: int, accuracy: float, megabytes: float) -> dict[str, Any]:
    ledger.trial(number).write(STUDENT, b"x" * int(megabytes * 10**6))
    return {"number": number, "state": "COMPLETE", "accuracy": accuracy, "ended": 10.0 + number}


def test_over_the_cap_the_oldest_students_go_and_the_best_stays(small: Path, tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "run"))
    disk = Disk(Study.read(small, ("budget/disk_gb=0.004",)), ledger)
    rows = [told(ledger, number, accuracy, 1) for number, accuracy in ((0, 50), (1, 70), (2, 60))]
    assert disk.full(rows, []) == "" and len(ledger.folder.sizes()) == 3
    ledger.trial(3).write("checkpoint.pt", b"x" * 10**6)  # under way: 1 MB, and so much for the next
    ledger.trial(4).write("recipe.yaml", b"x")  # under way, without a checkpoint yet
    assert disk.full(rows, [3, 4]) == ""
    assert [number for number in range(3) if ledger.trial(number).exists(STUDENT)] == [1]
    ledger.confirmation("ce", 1).write_json("trial.json", {"role": "ce", "seed": 1})
    ledger.confirmation("ce", 1).write(STUDENT, b"x" * 10**6)
    assert disk.full(rows, [3, 4]) == "" and not ledger.confirmation("ce", 1).exists(STUDENT)
    reason = disk.full(rows, [3, 4], coming=2)
    assert reason.startswith("budget/disk_gb = 0.004 is used up: the run takes 0.002 GB")
    assert ledger.trial(1).exists(STUDENT)


def test_a_torn_journal_is_cut_after_its_last_whole_entry(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert mended(path) == path and not path.exists()
    for whole, torn in ((b"", b'{"op'), (b'{"a":1}\n{"b":2}\n', b'{"c":'), (b'{"a":1}\n', b"")):
        path.write_bytes(whole + torn)
        assert mended(path).read_bytes() == whole


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 80 MB; needs the right to mount one."""
    path = tmp_path / "little"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(path)], check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a disk")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_study_with_one_line_and_it_goes_on_later(
    small: Path, little_disk: Path, launched: Any, raykd: Any
) -> None:
    run = Ledger(str(little_disk / "small"))
    driver = launched("launch", str(small), "--storage", str(little_disk), "--set", "epochs=12")
    end = time.time() + 150
    while len(run.epochs(0)) < 2:
        assert time.time() < end and driver.poll() is None
        time.sleep(0.1)
    ballast = little_disk / "ballast"
    with ballast.open("wb") as file:
        file.write(b"x" * (shutil.disk_usage(little_disk).free - 200_000))  # no room for a checkpoint
    assert driver.wait(120) == 1
    said = driver.communicate()[0].splitlines()
    assert f"the disk of {run.folder.uri} is full" in said[-1] and "Traceback" not in "\n".join(said), said
    stands = json.loads(raykd("status", run.folder.uri, "--json").stdout)
    assert stands["state"] == "stopped" and stands["trials"]["fail"] == 0
    ballast.unlink()
    assert raykd("resume", run.folder.uri).returncode == 0
    rows = run.trials()
    assert [row["state"] for row in rows] == ["COMPLETE"] * 3 and [row["tries"] for row in rows] == [0] * 3
    assert [e["epoch"] for e in run.epochs(0)] == list(range(1, 13))


@pytest.mark.slow
def test_a_study_stops_at_its_cap_and_goes_on_with_a_larger_one(
    small: Path, tmp_path: Path, raykd: Any
) -> None:
    asked = ("launch", str(small), "--set", "cluster/cpus=2", "--set", "budget/disk_gb=0.0004")
    done = raykd(*asked)
    assert done.returncode == 1 and "stopped: budget/disk_gb = 0.0004 is used up" in done.stderr, done.stderr
    rows = Ledger(str(tmp_path / "runs/small")).trials()
    assert 1 <= len(rows) < 3 and {row["state"] for row in rows} == {"COMPLETE"}
    done = raykd(*asked[:-1], "budget/disk_gb=0.1")
    assert done.returncode == 0, done.stderr
    assert json.loads(raykd("status", "runs/small", "--json").stdout)["trials"]["complete"] == 3
