"""What a run leaves on disk; the only file that knows. Reads and writes any storage that pyarrow.fs
understands.

RUN/study.yaml stamp.json        what was asked, and by what program and machine it was begun
RUN/state.json                   "running", "finished", ... as the driver last said
RUN/optuna.journal               the search's memory (Optuna's JournalStorage)
RUN/trials/00007/recipe.yaml     everything that decides the trial, written before its first step
                 trial.json      number, role, drawn values, state, reason, times    (the driver writes)
                 epochs.json     one row an epoch                                    (the trial writes)
                 failure.json    what went wrong in the trial                        (the trial writes)
                 checkpoint.pt, banks.pt   while it goes on; student.safetensors afterwards
RUN/confirm/<role>-seed<k>/      the same files for each retraining on the full training set
STORAGE/teachers/<net>-<hash>.safetensors    trained by studies, shared by the runs beside them
"""

import fcntl
import io
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.fs
from ruamel.yaml import YAML

from raykd.mistakes import BadInput

TRIAL_STATES = ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL")


class Folder:
    """A folder on any storage. Every write is whole or not at all."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        if "://" in self.uri:
            self._fs, self._root = pyarrow.fs.FileSystem.from_uri(self.uri)
        else:
            self.uri = str(Path(self.uri).absolute())
            self._fs, self._root = pyarrow.fs.LocalFileSystem(), self.uri

    @property
    def local(self) -> Path | None:
        """The path on this machine, where there is one."""
        return Path(self._root) if isinstance(self._fs, pyarrow.fs.LocalFileSystem) else None

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.uri}/{name}")

    def exists(self, name: str) -> bool:
        info = self._fs.get_file_info(f"{self._root}/{name}")
        return bool(info.type != pyarrow.fs.FileType.NotFound)

    def names(self) -> list[str]:
        """What lies in the folder, sorted; nothing when there is no such folder."""
        selector = pyarrow.fs.FileSelector(self._root, allow_not_found=True)
        return sorted(info.base_name for info in self._fs.get_file_info(selector))

    def read(self, name: str) -> bytes:
        with self._fs.open_input_stream(f"{self._root}/{name}") as stream:
            data: bytes = stream.read()
        return data

    def write(self, name: str, data: bytes) -> None:
        target = f"{self._root}/{name}"
        if self.local is None:
            with self._fs.open_output_stream(target) as stream:
                stream.write(data)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        partial = f"{target}.partial-{os.getpid()}"
        try:
            Path(partial).write_bytes(data)
        except OSError as error:
            Path(partial).unlink(missing_ok=True)
            raise OSError(f"{target}: {len(data):,} bytes could not be written ({error.strerror})") from error
        Path(partial).replace(target)

    def remove(self, name: str) -> None:
        if self.exists(name):
            self._fs.delete_file(f"{self._root}/{name}")

    def read_json(self, name: str) -> Any:
        """The file's content, or None when it is missing or torn."""
        try:
            return json.loads(self.read(name))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None

    def write_json(self, name: str, data: Any) -> None:
        self.write(name, (json.dumps(data, indent=1) + "\n").encode())

    def write_yaml(self, name: str, data: dict[str, Any]) -> None:
        stream = io.StringIO()
        YAML().dump(data, stream)
        self.write(name, stream.getvalue().encode())


def settle(folder: Folder) -> None:
    """Remove what only a continuation needs."""
    for name in ("checkpoint.pt", "banks.pt"):
        folder.remove(name)


class Ledger:
    """The files of one run."""

    def __init__(self, uri: str) -> None:
        self.folder = Folder(uri)
        self.name = self.folder.uri.rsplit("/", 1)[-1]

    @staticmethod
    def open(uri: str) -> "Ledger":
        ledger = Ledger(uri)
        if not ledger.folder.exists("study.yaml"):
            raise BadInput([f"{uri}: no run here (a run holds study.yaml)"])
        return ledger

    @property
    def storage(self) -> Folder:
        """The folder that holds this run and its neighbours."""
        return Folder(self.folder.uri.rsplit("/", 1)[0])

    def study(self) -> dict[str, Any]:
        plain: dict[str, Any] = YAML(typ="safe", pure=True).load(self.folder.read("study.yaml").decode())
        return plain

    def begin(self, study: dict[str, Any]) -> None:
        """Write what was asked. The run exists from then on."""
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
        told = (self.folder.read_json("state.json") or {}).get("state", "running")
        return "interrupted" if told == "running" and not self.held_by() else str(told)

    def why(self) -> str:
        return str((self.folder.read_json("state.json") or {}).get("why", ""))

    def tell(self, state: str, why: str = "") -> None:
        self.folder.write_json("state.json", {"state": state, "why": why, "at": time.time()})

    def held_by(self) -> str:
        """Who drives this run now; "" when nobody does."""
        path = self._lock_path()
        if not path.exists():
            return ""
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return path.read_text().strip()
        return ""

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run; BadInput says who does when somebody else drives it. A dead holder holds nothing."""
        path = self._lock_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(
                    [f"{self.folder.uri}: this run is driven by {path.read_text().strip()}"]
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n")
            file.flush()
            yield

    def _lock_path(self) -> Path:
        assert self.folder.local is not None
        return self.folder.local / "driver.lock"

    def journal(self) -> Path:
        assert self.folder.local is not None
        return self.folder.local / "optuna.journal"


def _rows(folder: Folder) -> list[dict[str, Any]]:
    rows = ((folder / name).read_json("trial.json") for name in folder.names())
    return [row for row in rows if row is not None]


def stamp() -> dict[str, Any]:
    """The program and the machine: commit, versions, hardware, time."""
    import torch

    try:
        here = Path(__file__).parent
        run = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        commit = run.stdout.strip()
    except OSError:
        commit = ""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "raykd": version("raykd"),
        "commit": commit or "unknown (not run from a checkout)",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "ray", "optuna")},
        "hardware": ", ".join(devices) or f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "begun": time.strftime("%FT%T%z"),
    }
