"""W&B: a group of the study, in it a run of each trial; WANDB_MODE=offline writes to ./wandb alone."""

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import wandb


class WandbTracker:
    """Logs to the project WANDB_PROJECT (default: raykd).

    Args:
        name: Of the study, and of its group.
        uri: The run's folder, by which a run that goes on is found again.
    """

    def __init__(self, name: str, uri: str) -> None:
        self._name, self._uri, self._runs = name, uri, dict[str, Any]()

    def begin_trial(self, trial: str, params: dict[str, Any]) -> int:
        """Begins a trial's run, or goes on with it; returns the last epoch that it has."""
        run = self._runs[trial] = self._open(trial, "trial", params)
        return int(run.step) - 1 if run.resumed else 0

    def log_epoch(self, trial: str, epoch: int, values: dict[str, float]) -> None:
        """Writes down what an epoch was like."""
        self._runs[trial].log(values, step=epoch)

    def end_trial(self, trial: str, state: str) -> None:
        """Ends a trial's run; its state is in the run's summary."""
        run = self._runs.pop(trial)
        run.summary["state"] = state
        run.finish(exit_code=int(state == "FAIL"))

    def close(self, files: list[Path]) -> None:
        """Ends what is open; keeps these files as an artifact of a run of the study's own."""
        for run in self._runs.values():
            run.finish()
        if not files:
            return
        study, artifact = self._open(self._name, "study", {}), wandb.Artifact(f"{self._name}-best", "model")
        for path in files:
            artifact.add_file(str(path))
        study.log_artifact(artifact)
        study.finish()

    def _open(self, name: str, job_type: str, params: dict[str, Any]) -> Any:
        run_id = sha256(f"{self._uri}/{name}".encode()).hexdigest()[:16]
        is_offline = os.environ.get("WANDB_MODE") == "offline"  # where no run can be found again
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", "raykd"), group=self._name, job_type=job_type, name=name,
            id=run_id, resume=None if is_offline else "allow", config=params, reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )  # fmt: skip
