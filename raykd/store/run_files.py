"""The files of a run as methods; their names are in file_names.py."""

import copy
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from raykd.errors import UserError
from raykd.store import file_names, lock
from raykd.store.folder import Folder, join_uri
from raykd.store.plugin_copies import write_copies
from raykd.study.yaml_file import parse_settings


def drop_checkpoints(folder: Folder) -> None:
    """Removes from a trial's folder what only its continuation needs."""
    for name in (file_names.CHECKPOINT, file_names.BANKS):
        folder.remove(name)


def repair_times(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a trial's row without negative times.

    A clock that was set back during a trial makes it end before it began, and runs older than this version
    counted negative seconds: such seconds become 0, such an end the start and the seconds after it.
    """
    started, ended, seconds = row.get("started"), row.get("ended"), row.get("seconds")
    if isinstance(seconds, int | float):
        seconds = max(0.0, seconds)
        row = row | {"seconds": seconds}
    if isinstance(started, int | float) and isinstance(ended, int | float) and ended < started:
        row = row | {"ended": started + (seconds or 0.0)}
    return row


def replace_auto(cluster: dict[str, Any], cpus: float = 1.0, gpus: float = 0.0) -> dict[str, Any]:
    """Returns a study's `cluster` with these CPUs and GPUs of a worker where it says `auto`."""
    sizes = {"cpus": cpus, "gpus": gpus}
    return cluster | {key: size for key, size in sizes.items() if cluster.get(key) == "auto"}


class RunFiles:
    """The files of a run, or of a comparison (a run of each of its methods); it may not exist yet.

    Raises:
        UserError: Its storage does not answer.
    """

    def __init__(self, uri: str) -> None:
        self.folder = Folder(uri)
        self.folder.check_reachable()
        self.name = self.folder.name

    @staticmethod
    def open(uri: str) -> "RunFiles":
        """Returns the files of a run that exists.

        Raises:
            UserError: There is no run, or there are several.
        """
        run_files = RunFiles.open_any(uri)
        if methods := run_files.list_methods():
            runs = ", ".join(run_files.method_run(method).folder.uri for method in methods)
            raise UserError([f"{uri}: a comparison of several runs; name one of them: {runs}"])
        return run_files

    @staticmethod
    def open_any(uri: str) -> "RunFiles":
        """Returns the files of a run or a comparison that exists.

        Raises:
            UserError: There is none.
        """
        run_files = RunFiles(uri)
        if not run_files.exists():
            raise UserError([f"{uri}: no run here (a run holds {file_names.STUDY})"])
        return run_files

    def list_methods(self) -> list[str]:
        """Returns the methods of a comparison, in the order of its runs; none of a single run."""
        methods: list[str] = self.folder.read_json(file_names.METHODS) or []
        return methods

    def list_runs(self) -> list["RunFiles"]:
        """Returns the runs of a comparison that have begun; of a single run itself."""
        runs = [self.method_run(method) for method in self.list_methods()]
        return [run for run in runs if run.exists()] if runs else [self]

    def method_run(self, method: str) -> "RunFiles":
        """Returns the run of one of a comparison's methods."""
        run_files = copy.copy(self)
        run_files.folder = self.folder / method
        run_files.name = method
        return run_files

    @property
    def storage(self) -> Folder:
        """The folder that holds this run, or the comparison that it is part of, and its neighbours."""
        parent = self.folder.parent
        return parent.parent if parent.exists(file_names.METHODS) else parent

    def exists(self) -> bool:
        """Returns whether the run was begun."""
        return self.folder.exists(file_names.STUDY)

    def study(self) -> dict[str, Any]:
        """Returns the study as plain data. UserError when the file holds none, or more than a study can."""
        return parse_settings(self.folder.read(file_names.STUDY), join_uri(self.folder.uri, file_names.STUDY))

    def resolved_study(self) -> dict[str, Any]:
        """Returns the study with the CPUs and GPUs of a worker that its last launch made of `auto`."""
        study, resources = self.study(), self.folder.read_json(file_names.RESOURCES) or {}
        if not isinstance(study.get("cluster"), dict):
            return study  # a damaged file
        sizes = {key: resources[key] for key in ("cpus", "gpus") if key in resources}
        return study | {"cluster": replace_auto(study["cluster"], **sizes)}

    def write_study(self, study: dict[str, Any]) -> None:
        """Writes the study anew: its budget may be another than when the run was begun."""
        self.folder.write_yaml(file_names.STUDY, study)

    def begin_comparison(self, study: dict[str, Any], methods: list[str]) -> None:
        """Writes which runs it holds, the plugin files in use, and its study: then the comparison exists."""
        self.folder.write_json(file_names.METHODS, methods)
        write_copies(self.folder)
        self.write_study(study)

    def begin(self, study: dict[str, Any], students: list[dict[str, Any]] | None = None) -> None:
        """Writes where the run comes from, the plugin files in use, and its study: then the run exists.

        `students`: what those of the space cost, where the study has constraints.
        """
        from raykd.store.provenance import (
            record_provenance,  # runs git when it is loaded: not for the verbs that only read
        )

        self.folder.write_json(file_names.PROVENANCE, record_provenance())
        if students:
            self.folder.write_json(file_names.STUDENTS, students)
        write_copies(self.folder)
        self.write_study(study)

    def students(self) -> list[dict[str, Any]]:
        """Returns what the student nets of the space cost; empty for a study without constraints."""
        students: list[dict[str, Any]] = self.folder.read_json(file_names.STUDENTS) or []
        return students

    def trial(self, number: int) -> Folder:
        """Returns a trial's folder."""
        return self.folder / file_names.TRIALS / f"{number:05d}"

    def confirmation(self, role: str, seed: int) -> Folder:
        """Returns a retraining's folder."""
        return self.folder / file_names.CONFIRM / f"{role}-seed{seed}"

    def trials(self) -> list[dict[str, Any]]:
        """Returns trial.json of each trial, in their order; a trial without one has not begun."""
        return _read_rows(self.folder / file_names.TRIALS)

    def confirmations(self) -> list[dict[str, Any]]:
        """Returns trial.json of each retraining."""
        return _read_rows(self.folder / file_names.CONFIRM)

    def epochs(self, number: int) -> list[dict[str, Any]]:
        """Returns a trial's rows, one an epoch."""
        rows: list[dict[str, Any]] = self.trial(number).read_json(file_names.EPOCHS) or []
        return rows

    def environments(self, numbers: list[int]) -> list[dict[str, str]]:
        """Returns what each of these trials and each retraining computed in and on; empty if it does not say.

        `precision`: float32 or bfloat16; `device`: its kind, in words; `hostname`. See `write_environment`.
        """
        folders = [f"{file_names.TRIALS}/{number:05d}" for number in numbers]
        retrainings = (self.folder / file_names.CONFIRM).list_names()
        folders += [f"{file_names.CONFIRM}/{name}" for name in retrainings]
        names = [f"{folder}/{file_names.ENVIRONMENT}" for folder in folders]
        return [content or {} for content in self.folder.read_json_files(names)]

    def state(self) -> str:
        """Returns running, interrupted, finished or stopped.

        A run that nobody holds and that has not ended is interrupted.
        """
        state = str((self.folder.read_json(file_names.STATE) or {}).get("state", "running"))
        if state not in ("running", "interrupted"):
            return state
        return "running" if self.lock_holder() else "interrupted"

    def stop_reason(self) -> str:
        """Returns why the run stopped before its end; else ""."""
        return str((self.folder.read_json(file_names.STATE) or {}).get("stop_reason", ""))

    def write_state(self, state: str, stop_reason: str = "") -> None:
        """Writes the run's state, and why it stopped."""
        content = {"state": state, "stop_reason": stop_reason, "time": time.time()}
        self.folder.write_json(file_names.STATE, content)

    def lock_holder(self) -> str:
        """Returns who drives this run now; "" when nobody does."""
        return lock.lock_holder(self.folder)

    def hold_lock(self) -> AbstractContextManager[None]:
        """Holds the run for a `with` block. UserError says who does when somebody else drives it."""
        return lock.hold_lock(self.folder)

    def journal_path(self) -> Path | None:
        """Returns the search's journal, where it is a file of this machine."""
        return self.folder.local and self.folder.local / file_names.JOURNAL


def _read_rows(folder: Folder) -> list[dict[str, Any]]:
    rows = folder.read_json_files([f"{name}/{file_names.TRIAL}" for name in folder.list_names()])
    return [repair_times(row) for row in rows if row is not None]
