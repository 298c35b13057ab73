"""Who drives a run: one driver at a time.

On this machine's disks (and on NFS that locks) the lock is one of the operating system, on an open file: it
ends with its holder, however that ends. Who only asks takes nothing, and needs only the right to read.

On an object store, which locks nothing, the lock is a lease: an object that its holder writes anew every
RENEW_INTERVAL seconds. Who finds one watches it, by its own clock, for a whole LEASE_DURATION: changed, it is
held; unchanged, it is taken over. A new lease is read back after CONFIRM_DELAY seconds, and the last writer
holds it. A holder that finds another's lease, or could not renew its own for a LEASE_DURATION, stops as if
interrupted.
What holds: a living driver is never replaced, and of two that start together one stops before it works.
What does not: when a holder was suspended or cut off for longer than a LEASE_DURATION, both may write until
it next renews, at which it begins to stop; each file stays whole, and the one written last counts.
"""

import fcntl
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import IO, Any

from raykd.errors import UserError
from raykd.store.file_names import LOCK
from raykd.store.folder import Folder

RENEW_INTERVAL, LEASE_DURATION, CONFIRM_DELAY = 4.0, 20.0, 2.0  # seconds
# Open file description locks, as Linux and macOS have them; Python names them on Linux only.
SET_LOCK, GET_LOCK = getattr(fcntl, "F_OFD_SETLK", 90), getattr(fcntl, "F_OFD_GETLK", 92)


def lock_holder(folder: Folder) -> str:
    """Returns who drives the run now; "" when nobody does. For an object store by this machine's clock."""
    if folder.local is None:
        content = folder.read_json(LOCK)
        return str(content["holder"]) if content and time.time() - content["time"] < LEASE_DURATION else ""
    try:
        with (folder.local / LOCK).open() as file:
            if _request_lock(file, GET_LOCK, fcntl.F_RDLCK) == fcntl.F_UNLCK:
                return ""
            return file.read().strip() or "a process that has just begun"
    except FileNotFoundError:
        return ""


def _request_lock(file: IO[str], command: int, kind: int) -> int:
    """Sets or asks for a lock of a kind on the whole of a file.

    Returns:
        The kind of a lock that stands in its way; F_UNLCK, asked for one, when none does.

    Raises:
        BlockingIOError: The lock to be set is held by another.
    """
    if sys.platform == "darwin":  # struct flock: start, length, process, kind, whence
        result = fcntl.fcntl(file, command, struct.pack("qqihh", 0, 0, 0, kind, 0))
        return int(struct.unpack("qqihh", result)[3])
    result = fcntl.fcntl(file, command, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))  # the kind first
    return int(struct.unpack("hhqqi4x", result)[0])


@contextmanager
def hold_lock(folder: Folder) -> Iterator[None]:
    """Holds the run for a `with` block. A dead holder holds nothing.

    Raises:
        UserError: Somebody else drives the run; says who.
    """
    with _hold_file_lock(folder) if folder.local is not None else _hold_lease(folder):
        yield


@contextmanager
def _hold_file_lock(folder: Folder) -> Iterator[None]:
    assert folder.local is not None
    path = folder.local / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            _request_lock(file, SET_LOCK, fcntl.F_WRLCK)
        except BlockingIOError:
            raise _make_error(folder, lock_holder(folder) or "another that ended just now") from None
        file.truncate(0)
        file.write(_describe_process() + "\n")
        file.flush()
        yield


@contextmanager
def _hold_lease(folder: Folder) -> Iterator[None]:
    lease = Lease(folder)
    lease.acquire()
    try:
        yield
    finally:
        lease.release()


class Lease:
    """A lock on an object store, renewed by a thread of its own."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._token, self._holder = folder, token_hex(8), _describe_process()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def acquire(self) -> None:
        """Takes the lease, which can take a LEASE_DURATION, and begins to renew it.

        Raises:
            UserError: Somebody else holds it; says who.
        """
        self._wait_until_free()
        self._write()
        time.sleep(CONFIRM_DELAY)
        content = self._folder.read_json(LOCK)
        if not self._is_ours(content):
            raise _make_error(self._folder, content["holder"] if content else "another that ended just now")
        self._thread.start()

    def release(self) -> None:
        """Ends the renewal, and removes the lease if it is still this one's."""
        self._released.set()
        self._thread.join()
        with suppress(OSError):  # a storage that does not answer: the lease runs out by itself
            if self._is_ours(self._folder.read_json(LOCK)):
                self._folder.remove(LOCK)

    def _wait_until_free(self) -> None:
        """Returns when nobody holds the run."""
        first = current = self._folder.read_json(LOCK)
        end = time.monotonic() + LEASE_DURATION
        while current is not None and time.monotonic() < end:
            if current != first:
                raise _make_error(self._folder, current["holder"])
            time.sleep(1)
            current = self._folder.read_json(LOCK)

    def _write(self) -> None:
        self._folder.write_json(LOCK, {"token": self._token, "holder": self._holder, "time": time.time()})

    def _is_ours(self, content: Any) -> bool:
        return content is not None and content["token"] == self._token

    def _renew(self) -> None:
        renewed_at = time.monotonic()
        while not self._released.wait(RENEW_INTERVAL):
            try:
                if not self._is_ours(self._folder.read_json(LOCK)):
                    break
                self._write()
                renewed_at = time.monotonic()
            except OSError:
                if time.monotonic() - renewed_at > LEASE_DURATION:
                    break
        else:
            return
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a shell's background job
        os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)


def _describe_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}"


def _make_error(folder: Folder, holder: str) -> UserError:
    return UserError([f"{folder.uri}: this run is driven by {holder}"])
