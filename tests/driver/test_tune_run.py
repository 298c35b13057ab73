"""Ray Tune's experiment of trials that are functions of the test's own, in real actors."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from support.run_files import HALF_OF_CPUS

from raykd.driver import trainables
from raykd.driver.searcher import StudySearch
from raykd.driver.tune_run import run_trials
from raykd.store.run_files import RunFiles
from raykd.study.study import Study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize("waits", [True, False])
def test_a_trial_whose_actor_is_slow_to_free_is_not_forgotten(
    waits: bool, small: Path, tmp_path: Path, ray_session: str
) -> None:
    """The first trial is stopped, but takes longer to end than Tune waits by itself; its actor is needed."""

    def train(config: dict[str, Any]) -> None:
        if waits:
            trainables.wait_for_ends()
        else:
            os.environ.pop("TUNE_FUNCTION_THREAD_TIMEOUT_S", None)
        try:
            for epoch in (1, 2, 3):
                row = {"epoch": epoch, "accuracy": 10.0, "seconds": 1.0, "parameters": 1}
                tune.report(row | {"final": epoch == 3})
        finally:
            time.sleep(3 if config["number"] == 0 else 0)

    study = Study.read(small, (HALF_OF_CPUS, "budget/trials=2"))
    run_files = RunFiles(str(tmp_path / "runs/small"))
    run_files.begin(study.to_dict())

    class FirstStops(StudySearch):
        def record_epoch(self, trial_id: str, result: dict[str, Any]) -> bool:
            return super().record_epoch(trial_id, result) or self.running[trial_id] == 0

    searcher = FirstStops(study, run_files, lambda number, params: {"number": number}, lambda: 1, print)
    run_trials(searcher, tune.with_resources(train, {"cpu": 1}), reuse_actors=True)
    rows = [searcher.rows[number] for number in range(2)]
    assert [row["state"] for row in rows] == ["PRUNED", "COMPLETE"]
    assert [row["lost"] for row in rows] == [0, int(not waits)] and not rows[1]["errors"]
