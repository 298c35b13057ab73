"""The Ray cluster that a study runs on: connecting quietly, and how many trials fit."""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray session: the cluster at `address`, or one of this machine's own, ended afterwards."""
    os.environ.update(QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address:
            settings |= {"address": address, "runtime_env": {"env_vars": QUIET}}
        else:
            settings |= {"include_dashboard": False, "object_store_memory": 200 * 2**20}
            if (quoted := shlex.quote(sys.executable)) != sys.executable:  # Ray puts it into a shell's words
                settings |= {"runtime_env": {"py_executable": quoted}}
        ray.init(**settings)
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial's failure is told by its row
        try:
            yield
        finally:
            ray.shutdown()


def places(cpus: float, gpus: float) -> int:
    """How many workers of this size the living nodes hold when nothing else runs there."""
    import ray

    return sum(_fits(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])


def _fits(resources: dict[str, float], cpus: float, gpus: float) -> int:
    counts = [int(resources.get("CPU", 0) / cpus)]
    if gpus:
        free = resources.get("GPU", 0)
        counts.append(int(free) * int(1 / gpus + 1e-9) if gpus < 1 else int(free / gpus))
    return min(counts)


def shape() -> str:
    """The cluster in words."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (int(sum(node.get(kind, 0) for node in alive)) for kind in ("CPU", "GPU"))
    return f"{len(alive)} node{'s' * (len(alive) > 1)}, {cpus} CPUs, {gpus} GPUs"
