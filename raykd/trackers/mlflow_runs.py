"""MLflow: a run of the study, trials nested in it, where MLFLOW_TRACKING_URI says."""

import os
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

URI, TRIAL, EPOCH = "raykd.run", "raykd.trial", "epoch"  # two tags and a metric


class MlflowTracker:
    """Logs to the experiment MLFLOW_EXPERIMENT_NAME (default: raykd).

    Args:
        name: Of the study.
        uri: The run's folder, by which a run that goes on is found again.
    """

    def __init__(self, name: str, uri: str) -> None:
        os.environ.setdefault(
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
        )  # a study does not wait for a dead server
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._client, self._uri, self._runs = MlflowClient(), uri, dict[str, str]()
        experiment_name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "raykd")
        experiment = self._client.get_experiment_by_name(experiment_name)
        self._experiment = (
            experiment.experiment_id if experiment else self._client.create_experiment(experiment_name)
        )
        self._study = self._open(name, "", {}).info.run_id

    def begin_trial(self, trial: str, params: dict[str, Any]) -> int:
        """Begins a trial's run, or goes on with it; returns the last epoch that it has."""
        run = self._open(trial, trial, {MLFLOW_PARENT_RUN_ID: self._study})
        self._runs[trial] = run.info.run_id
        for path, value in params.items():
            if path not in run.data.params:
                self._client.log_param(run.info.run_id, path, value)
        return int(run.data.metrics.get(EPOCH, 0))

    def log_epoch(self, trial: str, epoch: int, values: dict[str, float]) -> None:
        """Writes down what an epoch was like."""
        for name, value in (values | {EPOCH: epoch}).items():
            self._client.log_metric(self._runs[trial], name, value, step=epoch)

    def end_trial(self, trial: str, state: str) -> None:
        """Ends a trial's run; a pruned one is KILLED in MLflow's words."""
        status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}.get(state, "FAILED")
        self._client.set_terminated(self._runs.pop(trial), status)

    def close(self, files: list[Path]) -> None:
        """Ends the study's run, and keeps these files with it."""
        for path in files:
            self._client.log_artifact(self._study, str(path), "best")
        self._client.set_terminated(self._study)

    def _open(self, name: str, trial: str, tags: dict[str, str]) -> Run:
        found = self._client.search_runs(
            [self._experiment], f"tags.`{URI}` = '{self._uri}' and tags.`{TRIAL}` = '{trial or '-'}'"
        )
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0]
        own = {URI: self._uri, TRIAL: trial or "-"}
        return self._client.create_run(self._experiment, tags=tags | own, run_name=name)
