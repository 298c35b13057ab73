"""The Ray session that a study runs in: connecting quietly, and leaving the process as it was."""

import logging
import os
import shlex
import shutil
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from raykd.driver.leftovers import record_session, remove_dead
from raykd.driver.local_session import check_local_session, has_session
from raykd.driver.resources import WorkerSize
from raykd.driver.same_code import leave_current_folder
from raykd.driver.session_watch import ClusterError, watch_session, watch_start
from raykd.driver.surroundings import preserve_surroundings, turn_sigterm_into_interrupt
from raykd.errors import UserError, first_line
from raykd.store.folder import Folder
from raykd.store.processors import count_cpus

Result = TypeVar("Result")

MAX_LOST_WORKERS = 10  # so often a training is tried again whose process or machine was lost
RAY_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^Raylet is terminated",  # the end of its log; one line says that it died
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # each report waits for a poll of the controller
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    # driver/preemption.py watches instead, in Tune's trials too: without another process for each trial, or a
    # barrier of its workers at each step; whose state is written goes on elsewhere, before the deadline
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run's own files hold all that these would
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # the state is in the journal; Tune's snapshots are not read
    "TUNE_DISABLE_SIGINT_HANDLER": "0",
    "PYTHONWARNINGS": "ignore",
}
CONNECT_TIMEOUT_S = 10.0  # seconds that a cluster has to take a connection
# Ray's own switch, meant for desktops: no node but this one can join, and nothing listens beyond loopback.
# Ray reads it once, when it is imported: `connect` sets it before.
LOOPBACK_ENV = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def connect(address: str | None, run: Folder | None = None) -> Iterator[None]:
    """Connects to Ray for a `with` block, and leaves the process as it was.

    The session is the one that this process has already, which stays; else the cluster at `address` or in
    RAY_ADDRESS (which Ray sets for its jobs), which is left; else one of this machine's own, which listens on
    loopback alone and is ended. Where Ray was imported before, it may listen beyond, and a line says so.

    Args:
        address: Of a Ray cluster.
        run: The run that is driven. What dead drivers of it left on this machine is removed.

    Raises:
        ClusterError: None answers there or could be started, or one of its processes died.
        UserError: A session of this machine's own cannot start, or the process has another session.
    """
    if run is not None:
        remove_dead(run)
    check_local_session(address)
    with preserve_surroundings(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ.update(RAY_ENV)
        if has_session():
            _check_session_address(address)
            _quieten_loggers()
            with turn_sigterm_into_interrupt(), watch_session(False, describe_resume(run)):
                yield
            return
        address = address or os.environ.get("RAY_ADDRESS")
        os.environ.update({} if address else {LOOPBACK_ENV: "0"})
        with _start_session(address, run):
            _quieten_loggers()
            with turn_sigterm_into_interrupt(), watch_session(not address, describe_resume(run)):
                yield


def _quieten_loggers() -> None:
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial's failure stands in its row


def _check_session_address(address: str | None) -> None:
    import ray

    own_address = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", "local", own_address):
        raise UserError(
            [f"--address {address}: this process has a Ray session at {own_address}; ray.shutdown() ends it"]
        )


def describe_resume(run: Folder | None) -> str:
    """Returns in words how to go on when Ray died under a run, or under no run."""
    return f"nothing is lost. Go on with: raykd resume {run.uri}" if run else "try again"


@contextmanager
def _start_session(address: str | None, run: Folder | None) -> Iterator[None]:
    """Starts or joins a session; afterwards it is left, and the folder of one's own removed."""
    import ray

    folder = ""
    if run is not None and not address:
        record_session(run)
    try:
        with TemporaryDirectory(prefix="raykd-", ignore_cleanup_errors=True) as empty_folder:
            with leave_current_folder(empty_folder), watch_start(describe_resume(run)):
                context = init_ray(address)
            if not address:
                folder = context.address_info["session_dir"]
                _warn_if_exposed()
            if run is not None and folder:
                record_session(run, folder)
            yield
    finally:
        ray.shutdown()
    if folder:  # kept for a look at Ray's logs where something went wrong; the next launch removes it
        shutil.rmtree(folder, ignore_errors=True)


def init_ray(address: str | None) -> Any:
    """Joins the cluster at `address`, or starts a session of this machine's own; returns Ray's context.

    Raises:
        ClusterError: None answers there, or could be started.
    """
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
        return ray.init(**settings)
    except Exception as error:  # a plain one when the node is slow to start or dies meanwhile
        what = f"no Ray cluster answers at {address}" if address else "Ray did not start on this machine"
        raise ClusterError(f"{what}: {first_line(error)}") from error


def _warn_if_exposed() -> None:
    """Says where a session of one's own listens beyond loopback: Ray was imported before `connect`."""
    import ray

    place = ray.nodes()[0]["NodeManagerAddress"]
    if place != "127.0.0.1":
        print(
            f"raykd: Ray was imported before: its session listens at {place}, not on loopback alone; "
            f"{LOOPBACK_ENV}=0 before the import keeps it there",
            file=sys.stderr,
        )


def _check_port(address: str | None) -> None:
    """OSError when nobody listens at host:port: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()


def run_on_worker(function: Callable[..., Result], arguments: tuple[Any, ...], size: WorkerSize) -> Result:
    """Calls a function on one worker of the session's cluster and returns what it returns."""
    import ray

    task = ray.remote(num_cpus=size.cpus, num_gpus=size.gpus, max_retries=0)(function)
    result: Result = ray.get(task.remote(*arguments))
    return result
