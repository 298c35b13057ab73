"""When Ray Tune stops a trial: when Optuna's pruner says so."""

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raykd.driver.pooled_search import PooledSearch
from raykd.driver.searcher import StudySearch


class OptunaPruningScheduler(FIFOScheduler):
    """Stops a trial when Optuna's pruner says so; its rungs are in the journal."""

    def __init__(self, searcher: StudySearch | PooledSearch) -> None:
        super().__init__()
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Writes down an epoch; returns STOP or CONTINUE."""
        stop = self._searcher.record_epoch(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)
