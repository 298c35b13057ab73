"""NVIDIA's MPS (multi-process service): kernels of the processes that share a GPU run at once.

Without it they take turns. A daemon of this run's own serves each node with GPUs, through pipes in a folder
of its own; on a node where an administrator's serves the usual pipes, trials use that one.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
USUAL_PIPES = "/tmp/nvidia-mps"
START_TIMEOUT_S, STOP_TIMEOUT_S = 120.0, 30.0  # seconds that the daemons of all nodes have
# The daemon ends when this shell's input does: with whoever holds the other end, however that one dies.
SERVE = f'{CONTROL} -d >/dev/null && echo started && cat; echo quit | {CONTROL} >/dev/null; rm -rf "${PIPES}"'
FIX = f"put {CONTROL} (it comes with NVIDIA's driver) on the node's PATH, before `ray start`"


def is_served() -> bool:
    """Returns whether a daemon serves the pipes that this process's CUDA uses anyway."""
    return (Path(os.environ.get(PIPES, USUAL_PIPES)) / "control").exists()


def can_share() -> bool:
    """Returns whether trials that share a GPU of this node do so by MPS."""
    return is_served() or shutil.which(CONTROL) is not None


def describe(has_mps: bool) -> str:
    """Returns in words how trials share a GPU."""
    how = "compute at once, by NVIDIA's MPS" if has_mps else f"take turns (no {CONTROL} on the PATH)"
    return f"trials that share a GPU {how}"


class Daemon:
    """Serves this node from the folder of its pipes, until it is stopped or this process ends."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._shell: subprocess.Popen[str] | None = None

    def start(self) -> bool:
        """Returns whether trials of this node share GPUs by MPS now."""
        if is_served() or not can_share():
            return is_served()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = os.environ | {PIPES: str(self._folder), LOGS: str(self._folder)}
        self._shell = subprocess.Popen(
            ["sh", "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, start_new_session=True, env=environment,
        )  # fmt: skip
        assert self._shell.stdout is not None
        return self._shell.stdout.readline() == "started\n"

    def stop(self) -> None:
        """Ends the daemon."""
        if self._shell is not None:
            self._shell.communicate(timeout=STOP_TIMEOUT_S)


@contextmanager
def serve_nodes(gpus: float) -> Iterator[None]:
    """Has daemons on the session's nodes with GPUs for a `with` block in which workers take `gpus` of one.

    Where the block is left by an error, they end with their actors.
    """
    if not 0 < gpus < 1:
        yield
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    daemons: list[Any] = []
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("GPU"):
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            remote_class = ray.remote(num_cpus=0, scheduling_strategy=strategy)(Daemon)
            daemons.append(remote_class.remote(find_folder()))
    ray.wait([daemon.start.remote() for daemon in daemons], num_returns=len(daemons), timeout=START_TIMEOUT_S)
    yield
    ray.wait([daemon.stop.remote() for daemon in daemons], num_returns=len(daemons), timeout=STOP_TIMEOUT_S)
    for daemon in daemons:
        ray.kill(daemon)


def join() -> None:
    """Has this process's CUDA, which must not have begun, use the daemon of its run, where there is one."""
    if (folder := find_folder()).is_dir():
        os.environ[PIPES] = str(folder)


def find_folder() -> Path:
    """Returns the folder of the pipes of this Ray job on every node."""
    import ray

    context = ray.get_runtime_context()
    key = hashlib.sha256(f"{context.namespace} {context.get_job_id()}".encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"raykd-mps-{key}"
