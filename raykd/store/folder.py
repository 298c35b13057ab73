"""A folder on any storage that pyarrow.fs understands: this machine's disk, an object store, HDFS.

What holds. On a disk and on an object store (s3, gs, abfs) a file is written whole or not at all. On HDFS a
writer that dies while it writes leaves a torn file; `read_json` answers None for it, as for a missing one.
"""

import copy
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.fs
from ruamel.yaml import YAML

from raykd.errors import UserError, first_line
from raykd.paths import open_filesystem

PARTIAL = ".partial-"  # in the name of a file that is being written
MAX_REQUESTS = 32  # requests to an object store
TIMEOUT_S = 30  # seconds in which a storage must answer before a verb works on it
PROBE_SCRIPT = """
import sys, pyarrow.fs as fs
system, path = fs.FileSystem.from_uri(sys.argv[1])
top = path.split("/")[0]
if system.get_file_info(top or path).type == fs.FileType.NotFound:
    if "allow_bucket_creation=true" not in sys.argv[1]:
        sys.exit(f"there is no '{top}'")
    system.create_dir(top)
"""


class StorageError(OSError):
    """A file could not be written. The line names it, and why."""


class Folder:
    """A folder on this machine or on another storage, there or not yet.

    Args:
        uri: A path, or a URI with its storage's settings as a query
            (s3://bucket/prefix?region=...&endpoint_override=...&scheme=http).

    Raises:
        UserError: The URI names no file system, or holds a password.
    """

    def __init__(self, uri: str) -> None:
        if "://" in uri:
            path, mark, query = uri.partition("?")
            self._path, self._query = path.rstrip("/"), mark + query
            self._fs, self._root = open_filesystem(self._path + self._query)
        else:
            self._path, self._query = str(Path(uri).absolute()), ""
            self._fs, self._root = pyarrow.fs.LocalFileSystem(), self._path

    @property
    def uri(self) -> str:
        """The absolute path on this machine, or the URI with its query."""
        return self._path + self._query

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._path.rsplit("/", 1)[-1]

    @property
    def local(self) -> Path | None:
        """The path on this machine, where there is one."""
        return Path(self._root) if isinstance(self._fs, pyarrow.fs.LocalFileSystem) else None

    def __truediv__(self, name: str) -> "Folder":
        child = copy.copy(self)
        child._path, child._root = f"{self._path}/{name}", f"{self._root}/{name}"
        return child

    @property
    def parent(self) -> "Folder":
        """The folder that holds it."""
        parent = copy.copy(self)
        parent._path, parent._root = self._path.rpartition("/")[0], self._root.rpartition("/")[0]
        return parent

    def check_reachable(self) -> None:
        """Raises UserError when the storage does not answer, or its path leads through a file."""
        if self.local is not None:
            for path in (self.local, *self.local.parents):
                if path.is_file():
                    raise UserError([f"{self.uri}: {path} is a file; name a folder"])
            return
        scheme, _, rest = self._path.partition("://")
        top = f"{scheme}://{rest.split('/')[0]}{self._query}"
        if reason := _probe_storage(top):
            raise UserError([f"{self.uri}: {reason}"])

    def exists(self, name: str) -> bool:
        """Returns whether a file or folder of this name lies in it."""
        info = self._fs.get_file_info(f"{self._root}/{name}")
        return bool(info.type != pyarrow.fs.FileType.NotFound)

    def list_names(self) -> list[str]:
        """Returns the names of what lies in the folder, sorted; none when there is no such folder."""
        selector = pyarrow.fs.FileSelector(self._root, allow_not_found=True)
        return sorted(info.base_name for info in self._fs.get_file_info(selector))

    def file_sizes(self) -> dict[str, int]:
        """Returns the bytes of every file in the folder and below, by its path in the folder."""
        selector = pyarrow.fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        return {
            info.path.removeprefix(f"{self._root}/"): info.size
            for info in self._fs.get_file_info(selector)
            if info.is_file
        }

    def reject_foreign_files(self, is_own: bool, kind: str) -> None:
        """UserError when files lie in it, unless they are ours: of an earlier report, say (`kind`)."""
        if self.local is not None and self.local.is_file():
            raise UserError([f"{self.uri}: is a file; name a folder"])
        names = self.list_names()
        if names and not is_own:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise UserError(
                [f"{self.uri}: holds {shown}, and is no earlier {kind}; name a new or empty folder"]
            )

    def read(self, name: str) -> bytes:
        """Returns a file's content. FileNotFoundError when there is none."""
        with self._fs.open_input_stream(f"{self._root}/{name}") as stream:
            data: bytes = stream.read()
        return data

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, whole or not at all (see above), and the folders that it lies in.

        Raises:
            StorageError: It could not be written.
        """
        try:
            if self.local is None:
                with self._fs.open_output_stream(f"{self._root}/{name}") as stream:
                    stream.write(data)
            else:
                _replace(Path(self._root) / name, data)
        except OSError as error:
            reason = error.strerror or first_line(error)
            place = f"{self._path}/{name}"
            raise StorageError(f"{place}: {len(data):,} bytes could not be written ({reason})") from error

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with suppress(FileNotFoundError):
            self._fs.delete_file(f"{self._root}/{name}")

    def remove_partial_files(self) -> None:
        """Removes what a writer that was killed left of files in it; for who alone writes there."""
        for name in self.list_names():
            if PARTIAL in name:
                self.remove(name)

    def read_json(self, name: str) -> Any:
        """Returns what a JSON file holds, or None when it is missing or torn."""
        try:
            return json.loads(self.read(name))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None

    def read_json_files(self, names: list[str]) -> list[Any]:
        """Returns `read_json` of many files; from an object store many are read at once."""
        if self.local is not None:
            return [self.read_json(name) for name in names]
        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            return list(pool.map(self.read_json, names))

    def write_json(self, name: str, data: Any) -> None:
        """Writes plain data as JSON. StorageError as `write`."""
        self.write(name, (json.dumps(data, indent=1) + "\n").encode())

    def write_yaml(self, name: str, data: dict[str, Any]) -> None:
        """Writes plain data as YAML. StorageError as `write`."""
        stream = io.StringIO()
        YAML().dump(data, stream)
        self.write(name, stream.getvalue().encode())

    @contextmanager
    def staging_dir(self) -> Iterator[Path]:
        """Yields a temporary path to write files at, which are in this folder when all are written."""
        with tempfile.TemporaryDirectory(prefix="raykd-") as name:
            yield Path(name)
            for path in sorted(p for p in Path(name).rglob("*") if p.is_file()):
                self.write(path.relative_to(name).as_posix(), path.read_bytes())

    def fetch(self, name: str, cache: Path) -> Path:
        """Returns the file as a path on this machine: its own, or a copy in `cache`, anew if it has changed.

        Raises:
            UserError: There is no such file on the storage.
        """
        if self.local is not None:
            return self.local / name
        info = self._fs.get_file_info(f"{self._root}/{name}")
        if not info.is_file:
            raise UserError([f"{self._path}/{name}: no such file"])
        version = hashlib.sha256(f"{self.uri} {name} {info.size} {info.mtime_ns}".encode()).hexdigest()[:16]
        copy_path = cache / version / name
        if not copy_path.exists():
            _replace(copy_path, self.read(name))
        return copy_path


def join_uri(uri: str, name: str) -> str:
    """Returns the path or URI of what lies in a folder; its query stays at the end."""
    path, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def split_uri(uri: str) -> tuple[str, str]:
    """Returns a file's path or URI as (folder, name)."""
    path, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    folder, _, name = path.rpartition("/")
    return (folder or ".") + mark + query, name


@lru_cache
def _probe_storage(uri: str) -> str:
    """Returns why a storage cannot be worked on; "" when it can.

    Probed by a process that can be killed: some of pyarrow's file systems wait for minutes, and keep this
    process from ending.
    """
    try:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE_SCRIPT, uri],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the storage did not answer within {TIMEOUT_S} seconds"
    lines = probe.stderr.splitlines()
    return (lines or ["no reason given"])[-1] if probe.returncode else ""


def _replace(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}{PARTIAL}{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
