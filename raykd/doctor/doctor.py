"""What keeps a cluster from running a study: every node is asked, one worker process on each, and answers in
time or is named.
"""

import os
import platform
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from raykd.doctor import findings, node
from raykd.doctor.findings import Health, first_line
from raykd.driver.resources import places
from raykd.driver.session import connected
from raykd.store.folder import Folder
from raykd.study.study import Study

PATIENCE = 90.0  # seconds that the nodes have for each question
SKEW = 2.0  # seconds between clocks; trials' times and budgets are compared across nodes
PAYLOAD = 32 * 2**20  # bytes, to measure with


class Examiner:
    """A process on one node."""

    def facts(self, asked: node.Asked) -> dict[str, Any]:
        return node.facts(asked)

    def clock(self) -> float:
        return time.time()

    def give(self, size: int) -> list[Any]:
        """An object of so many bytes, in this node's store."""
        import ray

        return [ray.put(os.urandom(size))]

    def take(self, held: list[Any]) -> float:
        """Seconds to fetch it."""
        import ray

        began = time.perf_counter()
        ray.get(held[0])
        return time.perf_counter() - began


def examine(address: str | None, storage: str, root: Path, study: Study | None) -> Health:
    """Ask every node of the cluster at `address` (None: this machine alone); nothing is trained.

    With a study, also whether its data, its teacher and its workers have their place.
    """
    health = Health(address or "this machine")
    with ExitStack() as session:
        try:
            session.enter_context(connected(address))
        except ConnectionError as error:
            health.bad(
                "cluster", "reachable", first_line(error),
                "start the head (cluster/README.md), check host:port; set RAY_AUTH_MODE and the token so",
            )  # fmt: skip
        else:
            _examine(health, address, storage, root, study)
    return health


def _examine(health: Health, address: str | None, storage: str, root: Path, study: Study | None) -> None:
    import ray

    _authentication(health, address)
    nodes = _nodes(health)
    if study is not None:
        _room(health, study)
    asked = node.Asked(
        storage=Folder(storage).uri,
        token=_token(health, storage),
        root=str(root.absolute()),
        data=study.recipe.plain()["data"] if study else None,
        teacher=_teacher(study),
    )
    doctors = {name: _doctor(node) for name, node in nodes.items()}
    for name, answer in _answers(health, {n: d.facts.remote(asked) for n, d in doctors.items()}).items():
        findings.of_node(health, name, answer)
    alive = {name: doctor for name, doctor in doctors.items() if _clock(health, name, doctor)}
    _between(health, alive)
    _forget(storage)
    for doctor in doctors.values():
        ray.kill(doctor)


def _authentication(health: Health, address: str | None) -> None:
    from ray._private.authentication import authentication_token_setup as ray_auth

    if ray_auth.get_authentication_mode() == ray_auth.AuthenticationMode.TOKEN:
        health.good("cluster", "authentication", "by token")
    elif address is None:
        health.good("cluster", "authentication", "off; the session listens on this machine only")
    else:
        health.poor(
            "cluster", "authentication", "off: whoever reaches its ports can run programs there",
            "start every node with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN_PATH (cluster/README.md)",
        )  # fmt: skip


def _nodes(health: Health) -> dict[str, dict[str, Any]]:
    """The living nodes, by name; the dead are named."""
    import ray

    found: dict[str, dict[str, Any]] = {}
    for info in ray.nodes():
        name = f"{info['NodeManagerHostname']}-{info['NodeID'][:4]}"
        if info["Alive"]:
            found[name] = info
        else:
            health.poor(
                name, "reachable", f"left the cluster (it was {info['NodeManagerAddress']})",
                "start it again if it is missed; trials that it held go on elsewhere",
            )  # fmt: skip
    return found


def _room(health: Health, study: Study) -> None:
    cluster = study.cluster
    there, needed = places(cluster.cpus, cluster.gpus), cluster.workers
    each = f"{cluster.cpus:g} CPUs" + (f" and {cluster.gpus:g} GPUs" if cluster.gpus else "")
    if there >= needed:
        health.good("cluster", "room", f"{there // needed} trials at once, each {needed} x ({each})")
    else:
        health.bad(
            "cluster", "room", f"a trial takes {needed} x ({each}); {there} such places are there",
            "add nodes, or ask for less: --set cluster/workers=..., cluster/cpus=..., cluster/gpus=...",
        )  # fmt: skip


def _teacher(study: Study | None) -> tuple[str, str | None] | None:
    """The checkpoint that every node must read, and its hash."""
    teacher = study.recipe.teacher if study else None
    if teacher is None or teacher.weights is None or teacher.weights.startswith(("http:", "https:")):
        return None
    return teacher.weights, teacher.sha256


def _token(health: Health, storage: str) -> str:
    """A word written into the storage here, that every node must find there; "" where it cannot be."""
    token = f"{platform.node()}-{os.getpid()}-{time.time_ns()}"
    try:
        Folder(storage).reach()
        Folder(storage).write(node.TOKEN, token.encode())
    except (OSError, ValueError) as error:
        health.bad(
            "cluster", "storage", f"{storage} cannot be written from here: {first_line(error)}",
            "give --storage a folder or URI that this user may write, and its credentials in the environment",
        )  # fmt: skip
        return ""
    health.good("cluster", "storage", f"{storage} can be written from here")
    return token


def _forget(storage: str) -> None:
    try:
        Folder(storage).remove(node.TOKEN)
    except (OSError, ValueError):
        return  # what is wrong with the storage was said before


def _doctor(node: dict[str, Any]) -> Any:
    """A process on one node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    made = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=there)(Examiner)
    return made.remote()


def _answers(health: Health, asked: dict[str, Any]) -> dict[str, Any]:
    """What the nodes said in time. All are waited for together; who fails or is silent is named."""
    import ray

    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PATIENCE)
    answers = {}
    for name, reference in asked.items():
        if reference not in done:
            health.bad(
                name, "answers", f"did not answer in {PATIENCE:g} s",
                "look at the node and at its raylet's log; remove it, or start it again",
            )  # fmt: skip
            continue
        try:
            answers[name] = ray.get(reference)
        except ray.exceptions.RayError as error:
            health.bad(
                name, "answers", f"no worker could be started there: {_last(error)}",
                "install the same raykd and its requirements.lock on the node, or use cluster/Dockerfile's "
                "image",
            )  # fmt: skip
    return answers


def _clock(health: Health, name: str, doctor: Any) -> bool:
    """Whether the node answers; its clock against ours, to half a round trip."""
    import ray

    try:
        ray.get(doctor.clock.remote(), timeout=PATIENCE)
        began = time.time()
        theirs = ray.get(doctor.clock.remote(), timeout=PATIENCE)
        ended = time.time()
    except (ray.exceptions.RayError, TimeoutError):
        return False  # named already
    skew, doubt = theirs - (began + ended) / 2, (ended - began) / 2
    told = f"{1000 * skew:+.0f} ms against here, give or take {1000 * doubt:.0f} ms"
    if abs(skew) - doubt > SKEW:
        health.poor(name, "clock", told, "let the node keep time by NTP")
    else:
        health.good(name, "clock", told)
    return True


def _between(health: Health, doctors: dict[str, Any]) -> None:
    """Bandwidth from each node to the next, the last to the first."""
    import ray

    names = list(doctors)
    if len(names) < 2:
        return
    for giver, taker in zip(names, [*names[1:], names[0]], strict=True):
        try:
            held = ray.get(doctors[giver].give.remote(PAYLOAD), timeout=PATIENCE)
            seconds = ray.get(doctors[taker].take.remote(held), timeout=PATIENCE)
        except (ray.exceptions.RayError, TimeoutError) as error:
            health.bad(
                taker, "network", f"nothing came from {giver}: {first_line(error)}",
                "open the nodes' ports to each other (cluster/README.md, ports)",
            )  # fmt: skip
            continue
        rate = PAYLOAD / 1e6 / seconds
        findings.of_speed(health, taker, "network", f"{rate:.0f} MB/s from {giver}", rate)


def _last(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
