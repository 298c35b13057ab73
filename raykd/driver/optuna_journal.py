"""Optuna's journal, as a file of this machine or on an object store, which cannot append to an object.

There it is a folder of segments, 00000.jsonl, 00001.jsonl, ...: lines of JSON, which joined are the file that
Optuna's own JournalFileBackend reads. The last segment is written anew, whole, with every entry until it is
full; so an entry costs one small write, and an appended entry is in the store. One driver writes (the run's
lock), and nothing is read again while it does.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from raykd.store.folder import Folder

SEGMENT_BYTES = 64 * 2**10  # bytes after which the next segment is begun


def truncate_torn_entry(path: Path) -> Path:
    """Returns a journal's file, freed of the part of an entry that a full disk left at its end."""
    if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
    return path


class TransactionalJournal(BaseJournalBackend):
    """Another journal, of which the entries of a `transaction` are written at once, at its end.

    So a driver that is killed leaves a step of the search whole or not at all. One driver writes.
    """

    def __init__(self, journal: BaseJournalBackend) -> None:
        self._journal = journal
        self._num_read = 0  # entries of the journal that Optuna knows
        self._pending: list[dict[str, Any]] | None = None  # of the transaction under way

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Returns the entries from a number on, those of the transaction under way too."""
        if self._pending is not None:
            return self._pending[log_number_from - self._num_read :]
        entries = list(self._journal.read_logs(log_number_from))
        self._num_read = log_number_from + len(entries)
        return entries

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes entries; in a transaction, keeps them for its end."""
        if self._pending is None:
            self._journal.append_logs(logs)
        else:
            self._pending += json.loads(json.dumps(logs))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Writes at once, at its end, what is appended in a `with` block."""
        self._pending = []
        try:
            yield
        finally:
            entries, self._pending = self._pending, None
            if entries:
                self._journal.append_logs(entries)
                # the file's backend finds only what was read: else it goes through the whole file next time
                self._num_read += len(list(self._journal.read_logs(self._num_read)))


class StoredJournal(BaseJournalBackend):
    """Entries in a Folder; read once, then known."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        segments = [folder.read(name) for name in folder.list_names()]
        self._entries = [json.loads(line) for segment in segments for line in segment.splitlines()]
        self._index = max(0, len(segments) - 1)
        self._last_segment = segments[-1] if segments else b""

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Returns the entries from a number on."""
        return self._entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes entries: the last segment anew, or a new one."""
        if len(self._last_segment) > SEGMENT_BYTES:
            self._index, self._last_segment = self._index + 1, b""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._folder.write(f"{self._index:05d}.jsonl", self._last_segment + lines)
        self._last_segment += lines
        self._entries += json.loads(f"[{','.join(lines.decode().splitlines())}]")
