"""What tests read in a run's folder, and how they wait for it and kill what drives it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import optuna
import psutil
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from raykd.store.processors import count_cpus

Start = Callable[..., "Popen[str]"]
ALL_CPUS = f"cluster/cpus={count_cpus()}"  # one trial at a time, on any machine
HALF_OF_CPUS = f"cluster/cpus={count_cpus() / 2}"  # of two workers


def read_journal(run: Path) -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(run / "optuna.journal")))
    return optuna.load_study(study_name="small", storage=storage).get_trials()


def read_rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted((run / "trials").glob("*/trial.json"))]


def read_epochs(run: Path, number: int) -> list[dict[str, Any]]:
    path = run / "trials" / f"{number:05d}" / "epochs.json"
    return json.loads(path.read_text()) if path.exists() else []


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.1)


def kill_all(process: "Popen[str]") -> None:
    """SIGKILL to the driver and to every process of its Ray cluster."""
    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for child in processes:
        if child.is_running():
            child.kill()
    psutil.wait_procs(processes, timeout=20)
    process.wait()


def read_params(run: Path) -> list[dict[str, Any]]:
    return [t.params for t in read_journal(run)]


def assert_whole(run: Path, trials: int, num_epochs: int) -> None:
    """Every trial ended once, with every epoch, and Optuna knows the same."""
    trial_rows, trials_in_journal = read_rows(run), read_journal(run)
    assert [row["number"] for row in trial_rows] == list(range(trials))
    assert all(row["state"] == "COMPLETE" for row in trial_rows)
    assert [t.state for t in trials_in_journal] == [TrialState.COMPLETE] * trials
    for row, trial in zip(trial_rows, trials_in_journal, strict=True):
        steps = [e["epoch"] for e in read_epochs(run, row["number"])]
        assert steps == list(range(1, num_epochs + 1)) == sorted(trial.intermediate_values)
        assert trial.params == row["params"] and trial.value == row["accuracy"]
        assert not (run / "trials" / f"{row['number']:05d}" / "checkpoint.pt").exists()
