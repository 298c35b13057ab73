"""The Ray cluster that a study runs on: connecting quietly."""

import logging
import os
import shlex
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from raykd.driver.resources import places, shape
from raykd.errors import BadInput

Answer = TypeVar("Answer")

LOSSES = 10  # so often a training is tried again whose process or machine was lost
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # each report waits for a poll of the controller
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run's own files say all that these would
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # the journal is the memory; Tune's snapshots are not read
    "TUNE_DISABLE_SIGINT_HANDLER": "0",
    "PYTHONWARNINGS": "ignore",
}


KNOCK = 10.0  # seconds that a cluster has to take a connection
# Ray's own switch, meant for desktops: no node but this one can join, and nothing listens beyond loopback.
ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray session: the cluster at `address` or in RAY_ADDRESS (which Ray sets for its jobs), else one of
    this machine's own, which listens on loopback alone. Left, or ended, afterwards. ConnectionError: none
    answers there.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.update(QUIET | ({} if address else {ALONE: "0"}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray._private import ray_constants

        before = ray_constants.ENABLE_RAY_CLUSTER  # what ALONE says: Ray reads it once, when it is imported
        ray_constants.ENABLE_RAY_CLUSTER = address is not None
        try:
            _begin(address)
            for name in ("ray", "ray.tune", "ray.train"):
                logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial's failure is told by its row
            with _terminate_as_interrupt():
                yield
        finally:
            ray.shutdown()
            ray_constants.ENABLE_RAY_CLUSTER = before
            os.environ.pop(ALONE, None)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM (from `ray job stop`, Slurm, Kubernetes) ends a study as Ctrl-C does: resumable."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: Any) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _begin(address: str | None) -> None:
    import ray

    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        settings |= {"address": address, "runtime_env": {"env_vars": QUIET}}
    else:
        settings |= {"address": "local", "include_dashboard": False, "object_store_memory": 200 * 2**20}
        if (quoted := shlex.quote(sys.executable)) != sys.executable:  # Ray puts it into a shell's words
            settings |= {"runtime_env": {"py_executable": quoted}}
    try:
        _knock(address)
        ray.init(**settings)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConnectionError(f"no Ray cluster answers at {address or 'this machine'}: {reason}") from error


def _knock(address: str | None) -> None:
    """OSError when nobody listens at host:port: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), KNOCK).close()


def run_on_worker(
    function: Callable[..., Answer], arguments: tuple[Any, ...], cpus: float, gpus: float, address: str
) -> Answer:
    """Calls a function on one worker of the cluster at `address` and returns what it returns. UserError when
    no worker of this size fits.
    """
    with connected(address):
        import ray

        if not places(cpus, gpus):
            raise BadInput([f"a worker ({cpus:g} CPUs, {gpus:g} GPUs) fits nowhere: {shape()}"])
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(function)
        answer: Answer = ray.get(task.remote(*arguments))
    return answer
