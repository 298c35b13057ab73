"""Workers run the code that the driver runs: what Ray would make of the current folder, and the proof."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from raykd import plugins
from raykd.errors import UserError
from raykd.paths import PACKAGE, hash_code

Fingerprint = dict[str, str]


@contextmanager
def leave_current_folder(empty_folder: str) -> Iterator[None]:
    """Ray puts the current folder before all others on its workers' path, with whatever torch/ it holds.

    For a `with` block in which Ray starts it is an empty one, unless the driver itself imports from there.
    """
    here = os.path.realpath(".")
    if any(os.path.realpath(folder) == here for folder in sys.path):
        yield
    else:
        with chdir(empty_folder):
            yield


def get_fingerprint() -> Fingerprint:
    """Returns what says which code this process runs: versions, places, a hash of raykd's own files."""
    return _get_fingerprint()


@lru_cache(maxsize=1)
def _get_fingerprint() -> Fingerprint:
    torch_spec = find_spec("torch")  # found, not loaded: that takes a worker seconds
    assert torch_spec is not None and torch_spec.origin is not None
    return {
        "host": platform.node(),
        "Python": platform.python_version(),
        "torch": version("torch"),
        "raykd": version("raykd"),
        "raykd's files": hash_code(PACKAGE),
        "raykd's folder": str(PACKAGE.resolve()),
        "torch's folder": str(Path(torch_spec.origin).resolve().parent),
        "installed plugins": plugins.describe_installed() or "none",
    }


def describe_difference(driver: Fingerprint, worker: Fingerprint) -> str:
    """Returns in words in what a worker's code differs from the driver's; "" when it does not.

    On the driver's own machine the folders must be the same, elsewhere the files in them.
    """
    is_here = driver["host"] == worker["host"]
    places = ("raykd's folder", "torch's folder") if is_here else ("raykd's files",)
    names = [
        name
        for name in ("Python", "torch", "raykd", "installed plugins", *places)
        if driver[name] != worker[name]
    ]
    values = "; ".join(f"{name} {worker[name]}, the driver's {driver[name]}" for name in names)
    return values and f"a worker on {worker['host']} runs other code than the driver: {values}"


def check_nodes() -> None:
    """Asks one worker on each living node of the session that has CPUs for trials.

    Raises:
        UserError: It runs other code than this process.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(get_fingerprint)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    answers = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    for answer in answers:
        try:
            if difference := describe_difference(get_fingerprint(), ray.get(answer)):
                raise UserError([f"{difference}; install the same on every node"])
        except ray.exceptions.NodeDiedError:  # what runs there goes on elsewhere
            continue
