"""Whether Ray's own processes live: without them Ray waits for ever, or ends this process after a minute."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_LIMIT_S = 40.0  # after 30 s Ray raises what it can; after 60 s without a GCS it ends the process
INTERRUPT_LIMIT_S = 20.0  # for the main thread to end what it does; Ray itself would end it after 60 s
INTERVAL_S = 1.0  # between two looks
NUM_MISSED = 3  # looks in a row that a process of this machine does not answer
NUM_MISSED_HEAD = 45  # the same of a cluster's head, which may be started again; Ray gives up after 60 s


class ClusterError(ConnectionError):
    """A Ray session could not be joined or started, or died. What was done before stands in the run."""


class RayProcessDied(KeyboardInterrupt):
    """Raised in the main thread, wherever it waits for Ray; passes through what catches Exception."""


@contextmanager
def watch_start(go_on: str, limit: float = START_LIMIT_S) -> Iterator[None]:
    """Says for a `with` block in which Ray starts and waits for its GCS that this died, and how to go on.

    This process is then past help: Ray, which cannot be interrupted there, ends it. On Linux.

    Args:
        go_on: The end of the line.
        limit: Seconds between the GCS's death and the line.
    """
    ended = threading.Event()

    def watch() -> None:
        lived = 0.0
        while not ended.wait(min(INTERVAL_S, limit / 4)):
            now = time.monotonic()
            lived = now if _has_child("gcs_server") else lived
            if lived and now - lived > limit:
                print(f"raykd: Ray's GCS (its head process) died while Ray started; {go_on}", file=sys.stderr)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _has_child(name: str) -> bool:
    """Whether a living process of this name was started by this one."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words, _, rest = path.read_text().rpartition(") ")
        except OSError:
            continue  # it has just ended
        state, parent = rest.split()[:2]
        if words.endswith(f"({name}") and int(parent) == os.getpid() and state not in "ZX":
            return True
    return False


@contextmanager
def watch_session(is_own: bool, go_on: str) -> Iterator[None]:
    """Watches the session's GCS and the raylet of this machine for a `with` block of the main thread.

    Elsewhere than in the main thread nothing can be interrupted, nothing is watched. Where the main thread
    waits for the dead process within Ray, which cannot be interrupted either, this process is ended.

    Args:
        is_own: Whether the session is one of this machine alone, whose processes nobody starts again.
        go_on: The end of the line when this process is ended.

    Raises:
        ClusterError: One of them died; says which.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended, message = threading.Event(), ""

    def raise_died(*_: Any) -> None:
        if not ended.is_set():
            raise RayProcessDied

    def watch() -> None:
        nonlocal message
        missed = dict.fromkeys(processes, 0)
        while not ended.wait(INTERVAL_S):
            for name, (host, port, limit) in processes.items():
                missed[name] = 0 if _answers(host, port) else missed[name] + 1
                if missed[name] >= limit and not message:
                    message = f"Ray's {name} at {host}:{port} died"
                    os.kill(os.getpid(), signal.SIGUSR2)
                    if not ended.wait(INTERRUPT_LIMIT_S):
                        print(f"raykd: {message}; {go_on}", file=sys.stderr, flush=True)
                        os._exit(1)

    processes = _list_processes(NUM_MISSED if is_own else NUM_MISSED_HEAD)
    previous = signal.signal(signal.SIGUSR2, raise_died)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        if message:
            raise ClusterError(message) from None
        raise
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGUSR2, previous)


def _list_processes(head_limit: int) -> dict[str, tuple[str, int, int]]:
    """{name: (host, port, looks that it may miss)}."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    processes = {"GCS (its head process)": (host.strip("[]"), int(port), head_limit)}
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id():
            processes["raylet"] = (node["NodeManagerAddress"], int(node["NodeManagerPort"]), NUM_MISSED)
    return processes


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    except OSError:  # a network that is busy or away says nothing of the process
        return True
    return True
