"""What a run leaves in its storage; the only package that knows.

RUN/study.yaml stamp.json        what was asked, and by what program and machine it was begun
RUN/state.json                   "running", "finished", ... as the driver last said
RUN/driver.lock                  who drives it now
RUN/optuna.journal               the search's memory (Optuna's JournalStorage); on an object store a folder
                                 of segments (driver/journal.py)
RUN/trials/00007/recipe.yaml     everything that decides the trial, written before its first step
                 trial.json      number, role, drawn values, state, reason, times    (the driver writes)
                 preprocessing.json   how an image becomes an input, the classes     (the trial writes)
                 epochs.json     one row an epoch                                    (the trial writes)
                 failure.json    what went wrong in the trial                        (the trial writes)
                 unreadable.json images that others stood in for, if any             (the trial writes)
                 checkpoint.pt, banks.pt   while it goes on; student.safetensors afterwards
RUN/teacher/                     the same files while the study trains its teacher
RUN/confirm/<role>-seed<k>/      the same files for each retraining on the full training set, and
                 analysis.json   what the student is like beyond its accuracy (analysis.py)
STORAGE/teachers/<net>-<hash>.safetensors    trained by studies, shared by the runs beside them
"""

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from raykd.errors import BadInput
from raykd.store import lock
from raykd.store.folder import Folder

__all__ = ["JOURNAL", "Folder", "Ledger", "settle"]

JOURNAL = "optuna.journal"


def settle(folder: Folder) -> None:
    """Remove what only a continuation needs."""
    for name in ("checkpoint.pt", "banks.pt"):
        folder.remove(name)


class Ledger:
    """The files of one run."""

    def __init__(self, uri: str) -> None:
        self.folder = Folder(uri)
        self.folder.reach()
        self.name = self.folder.name

    @staticmethod
    def open(uri: str) -> "Ledger":
        ledger = Ledger(uri)
        if not ledger.folder.exists("study.yaml"):
            raise BadInput([f"{uri}: no run here (a run holds study.yaml)"])
        return ledger

    @property
    def storage(self) -> Folder:
        """The folder that holds this run and its neighbours."""
        return self.folder.parent

    def study(self) -> dict[str, Any]:
        plain: dict[str, Any] = YAML(typ="safe", pure=True).load(self.folder.read("study.yaml").decode())
        return plain

    def begin(self, study: dict[str, Any]) -> None:
        """Write what was asked. The run exists from then on."""
        from raykd.store.provenance import (
            stamp,  # asks git when it is loaded: not for the verbs that only read
        )

        self.folder.write_json("stamp.json", stamp())
        self.folder.write_yaml("study.yaml", study)

    def trial(self, number: int) -> Folder:
        return self.folder / "trials" / f"{number:05d}"

    def confirmation(self, role: str, seed: int) -> Folder:
        return self.folder / "confirm" / f"{role}-seed{seed}"

    def trials(self) -> list[dict[str, Any]]:
        """trial.json of each trial, in their order; a trial without one has not begun."""
        return _rows(self.folder / "trials")

    def confirmations(self) -> list[dict[str, Any]]:
        return _rows(self.folder / "confirm")

    def epochs(self, number: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.trial(number).read_json("epochs.json") or []
        return rows

    def state(self) -> str:
        """running, interrupted, finished or stopped. A run that nobody holds and that has not ended is
        interrupted.
        """
        told = str((self.folder.read_json("state.json") or {}).get("state", "running"))
        if told not in ("running", "interrupted"):
            return told
        return "running" if self.held_by() else "interrupted"

    def why(self) -> str:
        return str((self.folder.read_json("state.json") or {}).get("why", ""))

    def tell(self, state: str, why: str = "") -> None:
        self.folder.write_json("state.json", {"state": state, "why": why, "at": time.time()})

    def held_by(self) -> str:
        """Who drives this run now; "" when nobody does."""
        return lock.held_by(self.folder)

    def claim(self) -> AbstractContextManager[None]:
        """Hold the run; BadInput says who does when somebody else drives it. A dead holder holds nothing."""
        return lock.claimed(self.folder)

    def journal(self) -> Path | None:
        """The search's journal, where it is a file of this machine."""
        return self.folder.local and self.folder.local / JOURNAL


def _rows(folder: Folder) -> list[dict[str, Any]]:
    rows = folder.read_every([f"{name}/trial.json" for name in folder.names()])
    return [row for row in rows if row is not None]
