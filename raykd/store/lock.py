"""Who drives a run: one driver at a time.

On this machine's disks (and on NFS that locks) a claim is a lock of the operating system: it ends with its
holder, however that ends.

On an object store, which locks nothing, a claim is an object that its holder writes anew every BEAT seconds.
Who finds one watches it, by its own clock, for a whole LEASE: changed, it is held; unchanged, it is taken
over. A new claim is read back after SETTLE seconds, and the last writer holds it. A holder that finds
another's claim, or could not renew its own for a LEASE, stops as if interrupted.
What holds: a living driver is never replaced, and of two that start together one stops before it works.
What does not: when a holder was suspended or cut off for longer than a LEASE, both may write until its next
BEAT, at which it begins to stop; each file stays whole, and the one written last counts.
"""

import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any

from raykd.errors import BadInput
from raykd.store.folder import Folder

BEAT, LEASE, SETTLE = 4.0, 20.0, 2.0  # seconds
NAME = "driver.lock"


def held_by(folder: Folder) -> str:
    """Who drives the run now; "" when nobody does. For an object store by this machine's clock."""
    if folder.local is None:
        found = folder.read_json(NAME)
        return str(found["who"]) if found and time.time() - found["at"] < LEASE else ""
    path = folder.local / NAME
    if not path.exists():
        return ""
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return path.read_text().strip()
    return ""


@contextmanager
def claimed(folder: Folder) -> Iterator[None]:
    """Hold the run; BadInput says who does when somebody else drives it. A dead holder holds nothing."""
    with _locked(folder) if folder.local is not None else _leased(folder):
        yield


@contextmanager
def _locked(folder: Folder) -> Iterator[None]:
    assert folder.local is not None
    path = folder.local / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(folder, path.read_text().strip()) from None
        file.truncate(0)
        file.write(_me() + "\n")
        file.flush()
        yield


@contextmanager
def _leased(folder: Folder) -> Iterator[None]:
    lease = Lease(folder)
    lease.take()
    try:
        yield
    finally:
        lease.release()


class Lease:
    """A claim on an object store, renewed by a thread of its own."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._token, self._who = folder, token_hex(8), _me()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> None:
        self._watch()
        self._write()
        time.sleep(SETTLE)
        found = self._folder.read_json(NAME)
        if not self._ours(found):
            raise _refusal(self._folder, found["who"] if found else "another that ended just now")
        self._thread.start()

    def release(self) -> None:
        self._over.set()
        self._thread.join()
        with suppress(OSError):  # a storage that does not answer: the claim runs out by itself
            if self._ours(self._folder.read_json(NAME)):
                self._folder.remove(NAME)

    def _watch(self) -> None:
        """Return when nobody holds the run."""
        seen = now = self._folder.read_json(NAME)
        end = time.monotonic() + LEASE
        while now is not None and time.monotonic() < end:
            if now != seen:
                raise _refusal(self._folder, now["who"])
            time.sleep(1)
            now = self._folder.read_json(NAME)

    def _write(self) -> None:
        self._folder.write_json(NAME, {"token": self._token, "who": self._who, "at": time.time()})

    def _ours(self, found: Any) -> bool:
        return found is not None and found["token"] == self._token

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._over.wait(BEAT):
            try:
                if not self._ours(self._folder.read_json(NAME)):
                    break
                self._write()
                renewed = time.monotonic()
            except OSError:
                if time.monotonic() - renewed > LEASE:
                    break
        else:
            return
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a shell's background job
        os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}"


def _refusal(folder: Folder, who: str) -> BadInput:
    return BadInput([f"{folder.uri}: this run is driven by {who}"])
