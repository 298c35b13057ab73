"""TensorBoard: a folder of events of each trial, RUN/report/tensorboard/live, while the run goes on."""

from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from raykd.errors import UserError
from raykd.store import file_names
from raykd.store.folder import Folder


class TensorboardTracker:
    """Writes events of trials beside those that the report writes of them at the end.

    Args:
        name: Of the study.
        uri: The run's folder. UserError where it is no local one.
    """

    def __init__(self, name: str, uri: str) -> None:
        local = Folder(uri).local
        if local is None:
            raise UserError([f"--track tensorboard: {uri}: TensorBoard's events need a local folder"])
        self._folder, self._writers = local / file_names.REPORT / "live", dict[str, SummaryWriter]()

    def begin_trial(self, trial: str, params: dict[str, Any]) -> int:
        """Begins a trial's events anew."""
        folder = self._folder / trial
        for path in folder.glob("events.*"):
            path.unlink()
        writer = self._writers[trial] = SummaryWriter(str(folder), flush_secs=1)
        writer.add_text("params", "  ".join(f"{path}={value}" for path, value in params.items()))
        return 0

    def log_epoch(self, trial: str, epoch: int, values: dict[str, float]) -> None:
        """Writes down what an epoch was like."""
        for name, value in values.items():
            self._writers[trial].add_scalar(name, value, epoch)

    def end_trial(self, trial: str, state: str) -> None:
        """Ends a trial's events."""
        writer = self._writers.pop(trial)
        writer.add_text("state", state)
        writer.close()

    def close(self, files: list[Path]) -> None:
        """Ends what is open; the files lie beside the events anyway."""
        for writer in self._writers.values():
            writer.close()
