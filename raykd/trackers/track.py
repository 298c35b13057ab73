"""A run's events passed on to trackers. A tracker that fails is left out: the study goes on."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Self

from raykd.errors import UserError, first_line
from raykd.metric import get_metric
from raykd.store import file_names
from raykd.store.run_files import RunFiles
from raykd.trackers._base import Tracker

TRACKERS = {  # its module's last word, its class and the package it needs
    "mlflow": ("mlflow_runs", "MlflowTracker", "mlflow"),
    "wandb": ("wandb_runs", "WandbTracker", "wandb"),
    "tensorboard": ("tensorboard_runs", "TensorboardTracker", "tensorboard"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError for each tracker whose package is not installed, with the extra that brings it."""
    missing = [name for name in names if find_spec(TRACKERS[name][2]) is None]
    if missing:
        raise UserError(f"--track {name}: not installed: pip install 'raykd[{name}]'" for name in missing)


class RunTracking:
    """Tells trackers of a run's trials, from its events and its files.

    Args:
        names: Of the trackers.
        study: The study's name.
        owner: The run or the comparison.
    """

    def __init__(self, names: Sequence[str], study: str, owner: RunFiles) -> None:
        self._names, self._study, self._owner = tuple(dict.fromkeys(names)), study, owner
        self._trackers: dict[str, Tracker] | None = None  # opened with the first trial
        self._epochs: dict[str, dict[str, int]] = {}  # by trial and tracker: the last epoch that it has
        self._done: set[str] = set()  # retrainings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the study's run; the files of its export, if it has one, are kept with it."""
        with tempfile.TemporaryDirectory() as folder:
            files = self._copy_export(Path(folder)) if self._trackers else []
            for name in list(self._trackers or ()):
                self._tell(name, lambda tracker: tracker.close(files))

    def follow(self, show: Callable[[str, dict[str, Any]], None]) -> Callable[[str, dict[str, Any]], None]:
        """Returns a handler of a run's events that shows each, and tells the trackers of it."""

        def on_event(phase: str, details: dict[str, Any]) -> None:
            show(phase, details)
            if not self._names or self._trackers == {}:
                return
            if phase == "search" and "number" in details:
                self._pass_on_row(details)
            if phase == "confirm":
                self._pass_on_confirmations()

        return on_event

    def _open(self) -> dict[str, Tracker]:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before its import
        trackers: dict[str, Tracker] = {}
        for name in self._names:
            module, cls, _ = TRACKERS[name]
            try:
                tracker = getattr(import_module(f"raykd.trackers.{module}"), cls)
                trackers[name] = tracker(self._study, self._owner.folder.uri)
            except Exception as error:  # what a server or its client may raise is without bounds
                _say_lost(name, error)
        return trackers

    def _pass_on_row(self, row: dict[str, Any]) -> None:
        is_comparison = bool(self._owner.list_methods())
        run_files = self._owner.method_run(row["method"]) if is_comparison else self._owner
        trial = f"{row['method']}/{row['number']:05d}" if is_comparison else f"{row['number']:05d}"
        self._tell_all(trial, row, run_files.epochs(row["number"])[: row["epochs"]] if row["epochs"] else [])

    def _pass_on_confirmations(self) -> None:
        """Those that are done are passed on once; a run of an earlier driver's is found again, and ended."""
        for run_files in self._owner.list_runs():
            prefix = f"{run_files.name}/" if self._owner.list_methods() else ""
            for row in run_files.confirmations():
                trial = f"{prefix}{row['role']}-seed{row['seed']}"
                folder = run_files.confirmation(row["role"], row["seed"])
                epochs = folder.read_json(file_names.EPOCHS) or []
                is_done = bool(epochs) and "test_accuracy" in epochs[-1]
                if trial not in self._done:
                    row |= {"params": {"trial": row["number"], "seed": row["seed"]}}
                    self._tell_all(trial, row | {"state": "COMPLETE" if is_done else "RUNNING"}, epochs)
                if is_done:
                    self._done.add(trial)

    def _tell_all(self, trial: str, row: dict[str, Any], epochs: list[dict[str, Any]]) -> None:
        if self._trackers is None:
            self._trackers = self._open()
        for name in list(self._trackers):
            self._tell(name, partial(self._pass_on, name, trial, row, epochs))

    def _pass_on(
        self, name: str, trial: str, row: dict[str, Any], epochs: list[dict[str, Any]], tracker: Tracker
    ) -> None:
        known = self._epochs.setdefault(trial, {})
        if name not in known:
            if row["state"] == "WAITING":
                return
            known[name] = tracker.begin_trial(trial, row["params"] | {"role": row["role"]})
        for epoch in epochs:
            if epoch["epoch"] > known[name]:
                tracker.log_epoch(trial, epoch["epoch"], _list_values(epoch))
                known[name] = epoch["epoch"]
        if row["state"] in ("COMPLETE", "PRUNED", "FAIL"):
            tracker.end_trial(trial, row["state"])
            del known[name]

    def _tell(self, name: str, call: Callable[[Tracker], None]) -> None:
        assert self._trackers is not None
        try:
            call(self._trackers[name])
        except Exception as error:  # as above
            del self._trackers[name]
            _say_lost(name, error)

    def _copy_export(self, folder: Path) -> list[Path]:
        """The exported students' files; of a comparison each method's with its name in front."""
        copies = []
        for run_files in self._owner.list_runs():
            export = run_files.folder / file_names.EXPORT
            prefix = f"{run_files.name}-" if self._owner.list_methods() else ""
            for name in export.list_names():
                copies.append(folder / f"{prefix}{name}")
                copies[-1].write_bytes(export.read(name))
        return copies


def _list_values(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of an epoch by the names that a report's TensorBoard events have."""
    metric = get_metric(row)
    values = {name: row[name] for name in ("lr", "seconds", "images_per_second")}
    values |= {f"term/{name}": value for name, value in row["terms"].items()}
    for name in dict.fromkeys(("accuracy", metric)):
        values |= {f"held_out_{name}": row.get(name), f"test_{name}": row.get(f"test_{name}")}
    return {name: float(value) for name, value in values.items() if value is not None and isfinite(value)}


def _say_lost(name: str, error: BaseException) -> None:
    print(f"--track {name}: {first_line(error)}; the study goes on without it", file=sys.stderr, flush=True)
