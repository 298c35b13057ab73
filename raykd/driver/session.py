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

from raykd.driver.local_session import check_local_session
from raykd.driver.resources import describe_cluster, worker_slots
from raykd.errors import UserError, first_line
from raykd.store.processors import count_cpus

Result = TypeVar("Result")

MAX_LOST_WORKERS = 10  # so often a training is tried again whose process or machine was lost
RAY_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # each report waits for a poll of the controller
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run's own files hold all that these would
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # the state is in the journal; Tune's snapshots are not read
    "TUNE_DISABLE_SIGINT_HANDLER": "0",
    "PYTHONWARNINGS": "ignore",
}


CONNECT_TIMEOUT_S = 10.0  # seconds that a cluster has to take a connection
# Ray's own switch, meant for desktops: no node but this one can join, and nothing listens beyond loopback.
LOOPBACK_ENV = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def connect(address: str | None) -> Iterator[None]:
    """A Ray session: the cluster at `address` or in RAY_ADDRESS (which Ray sets for its jobs), else one of
    this machine's own, which listens on loopback alone. Left, or ended, afterwards. ConnectionError: none
    answers there.
    """
    check_local_session(address)
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.update(RAY_ENV | ({} if address else {LOOPBACK_ENV: "0"}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray._private import ray_constants

        previous = ray_constants.ENABLE_RAY_CLUSTER  # Ray reads LOOPBACK_ENV once, when it is imported
        ray_constants.ENABLE_RAY_CLUSTER = address is not None
        try:
            _init_ray(address)
            for name in ("ray", "ray.tune", "ray.train"):
                logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial's failure stands in its row
            with _turn_sigterm_into_interrupt():
                yield
        finally:
            ray.shutdown()
            ray_constants.ENABLE_RAY_CLUSTER = previous
            os.environ.pop(LOOPBACK_ENV, None)


@contextmanager
def _turn_sigterm_into_interrupt() -> Iterator[None]:
    """SIGTERM (from `ray job stop`, Slurm, Kubernetes) ends a study as Ctrl-C does: resumable."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_: Any) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _init_ray(address: str | None) -> None:
    import ray

    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        settings |= {"address": address, "runtime_env": {"env_vars": RAY_ENV}}
    else:
        settings |= {"address": "local", "include_dashboard": False, "object_store_memory": 200 * 2**20}
        settings["num_cpus"] = count_cpus()
        if (quoted := shlex.quote(sys.executable)) != sys.executable:  # Ray puts it into a shell's words
            settings |= {"runtime_env": {"py_executable": quoted}}
    try:
        _check_port(address)
        ray.init(**settings)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        place = address or "this machine"
        raise ConnectionError(f"no Ray cluster answers at {place}: {first_line(error)}") from error


def _check_port(address: str | None) -> None:
    """OSError when nobody listens at host:port: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()


def run_on_worker(
    function: Callable[..., Result], arguments: tuple[Any, ...], cpus: float, gpus: float, address: str
) -> Result:
    """Calls a function on one worker of the cluster at `address` and returns what it returns. UserError when
    no worker of this size fits.
    """
    with connect(address):
        import ray

        if not worker_slots(cpus, gpus):
            raise UserError([f"a worker ({cpus:g} CPUs, {gpus:g} GPUs) fits nowhere: {describe_cluster()}"])
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(function)
        result: Result = ray.get(task.remote(*arguments))
    return result
