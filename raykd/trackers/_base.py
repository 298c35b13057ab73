"""What a tracker is told of a run; its state is its own server's or folder's."""

from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Keeps a run of the study, and below it one of each trial, which is named "00007" or "dcd/00007"."""

    def begin_trial(self, trial: str, params: dict[str, Any]) -> int:
        """Begins a trial's run, or goes on with it; returns the last epoch that it has."""

    def log_epoch(self, trial: str, epoch: int, values: dict[str, float]) -> None:
        """Writes down what an epoch was like."""

    def end_trial(self, trial: str, state: str) -> None:
        """Ends a trial's run: COMPLETE, PRUNED or FAIL."""

    def close(self, files: list[Path]) -> None:
        """Ends the study's run, and keeps these files with it."""
