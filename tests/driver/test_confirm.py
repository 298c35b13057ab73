"""The end of a study when it goes wrong: a worker of a retraining is killed, a retraining fails."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.run_files import wait_for

from raykd.store.run_files import Ledger
from raykd.store.status import standing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def test_two_workers_retrain_a_killed_one_goes_on_and_a_failed_one_leaves_the_others(
    small: Path, tmp_path: Path, launched: Any
) -> None:
    settings = ("budget/trials=1", "confirm={seeds: 1, controls: [ce], workers: 2}", "epochs=5")
    driver = launched("launch", str(small), *(word for s in settings for word in ("--set", s)))
    ledger = Ledger(str(tmp_path / "runs/small"))
    best = ledger.confirmation("best", 1)
    wait_for(lambda: len(best.read_json("epochs.json") or []) >= 2, 200)
    ledger.confirmation("ce", 1).write("checkpoint.pt", b"not a checkpoint")
    before = best.read_json("epochs.json")[:-1]  # the last one's checkpoint may not have been written
    os.kill(int(best.read_json("stamp.json")["worker"].split()[-1]), signal.SIGKILL)
    assert driver.wait(300) == 1
    said = driver.communicate()[0]
    assert "stopped: confirmation of ce, seed 1: UnpicklingError" in said, said
    rows = best.read_json("epochs.json")
    assert rows[: len(before)] == before and len(rows) == 5 and "test_accuracy" in rows[-1]
    lost = {row["role"]: row["lost"] for row in ledger.confirmations()}
    assert lost == {"best": 1, "paper": 0, "ce": 0}
    assert ledger.state() == "stopped"  # resumed, it tries what failed again
    assert {role: len(of) for role, of in standing(ledger)["confirmed"].items()} == {"best": 1, "paper": 1}
    assert "test_accuracy" not in ledger.epochs(0)[-1]  # the search never opens the test set
    assert not best.exists("checkpoint.pt") and not (tmp_path / "runs/small/train").exists()
