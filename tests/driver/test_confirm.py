"""The end of a study when it goes wrong: a retraining is killed, or fails."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support import fake_runs
from support.run_files import HALF_OF_CPUS, wait_for

from raykd.driver.confirm import drop_done_checkpoints, list_pending
from raykd.driver.study_run import StudyRun
from raykd.store.run_files import RunFiles
from raykd.store.status import get_status


def test_a_retraining_that_was_killed_before_its_analysis_still_owes_it(tmp_path: Path) -> None:
    """And the checkpoint of one that owes nothing, which a killed driver left, goes."""
    study = fake_runs.make_study("made", trials=6)
    run = StudyRun(study, fake_runs.write_run(study, tmp_path))
    assert list_pending([run]) == []
    killed, done = (run.run_files.confirmation("best", seed) for seed in (1, 2))
    for folder in (killed, done):
        folder.write("checkpoint.pt", b"")
    killed.remove("analysis.json")
    assert [retraining.name for retraining in list_pending([run])] == ["best, seed 1"]
    drop_done_checkpoints(run.run_files)
    assert killed.exists("checkpoint.pt") and not done.exists("checkpoint.pt")


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_two_workers_retrain_a_killed_one_goes_on_and_a_failed_one_leaves_the_others(
    small: Path, tmp_path: Path, start_study: Any, ray_session: str
) -> None:
    settings = ("budget/trials=1", "confirm={seeds: 1, controls: [ce], workers: 2}", "epochs=5", HALF_OF_CPUS)
    driver = start_study(str(small), ray_session, *settings)
    run_files = RunFiles(str(tmp_path / "runs/small"))
    best = run_files.confirmation("best", 1)
    wait_for(lambda: len(best.read_json("epochs.json") or []) >= 2, 200)
    run_files.confirmation("ce", 1).write("checkpoint.pt", b"not a checkpoint")
    epochs_before = best.read_json("epochs.json")[:-1]  # the last one's checkpoint may not have been written
    os.kill(int(best.read_json("provenance.json")["worker"].split()[-1]), signal.SIGKILL)
    assert driver.wait(300) == 0, driver.communicate()[0]
    assert run_files.stop_reason().startswith("confirmation of ce, seed 1: UnpicklingError")
    rows = best.read_json("epochs.json")
    assert rows[: len(epochs_before)] == epochs_before and len(rows) == 5 and "test_accuracy" in rows[-1]
    num_lost = {row["role"]: row["lost"] for row in run_files.confirmations()}
    assert num_lost == {"best": 1, "paper": 0, "ce": 0}
    assert run_files.state() == "stopped"  # resumed, it tries what failed again
    accuracies = get_status(run_files)["test_accuracies"]
    assert {role: len(seeds) for role, seeds in accuracies.items()} == {"best": 1, "paper": 1}
    assert "test_accuracy" not in run_files.epochs(0)[-1]  # the search never opens the test set
    assert not best.exists("checkpoint.pt") and not (tmp_path / "runs/small/train").exists()
