"""The end of a study when it goes wrong: a worker of a retraining is killed, a retraining fails."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from raykd.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def test_a_killed_retraining_goes_on_and_a_failed_one_leaves_the_others(
    small: Path, tmp_path: Path, launched: Any, raykd: Any
) -> None:
    settings = ("budget/trials=1", "confirm={seeds: 1, controls: [ce]}", "epochs=6", "cluster/cpus=2")
    driver = launched("launch", str(small), *(word for s in settings for word in ("--set", s)))
    ledger = Ledger(str(tmp_path / "runs/small"))
    best, ce = ledger.confirmation("best", 1), ledger.confirmation("ce", 1)
    end = time.time() + 200
    while not best.read_json("epochs.json"):
        assert time.time() < end and driver.poll() is None
        time.sleep(0.05)
    (tmp_path / "runs/small/confirm/ce-seed1/checkpoint.pt").write_bytes(b"not a checkpoint")
    before = best.read_json("epochs.json")
    os.kill(int(best.read_json("stamp.json")["worker"].split()[-1]), signal.SIGKILL)
    assert driver.wait(300) == 1
    said = driver.communicate()[0]
    assert "stopped: confirmation of ce, seed 1: UnpicklingError" in said, said
    rows = best.read_json("epochs.json")
    assert rows[: len(before)] == before and len(rows) == 6 and "test_accuracy" in rows[-1]
    lost = {row["role"]: row["lost"] for row in ledger.confirmations()}
    assert lost == {"best": 1, "paper": 0, "ce": 0}
    assert not best.exists("checkpoint.pt") and not (tmp_path / "runs/small/train").exists()

    ce.remove("checkpoint.pt")
    assert raykd("resume", str(tmp_path / "runs/small")).returncode == 0
    stands = json.loads(raykd("status", str(tmp_path / "runs/small"), "--json").stdout)
    assert stands["state"] == "finished" and set(stands["confirmed"]) == {"best", "paper", "ce"}
