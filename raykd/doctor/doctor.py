"""What keeps a cluster from running a study.

Every node is asked, by one worker process on each, and answers in time or is named.
"""

import os
import platform
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from raykd import plugins
from raykd.doctor import findings, node
from raykd.doctor.findings import Health
from raykd.driver.auto_resources import resolve
from raykd.driver.preemption import list_draining_nodes
from raykd.driver.resources import describe_idle_gpus, find_misfit, list_nodes, may_share_gpu
from raykd.driver.session import connect
from raykd.errors import UserError, first_line
from raykd.store.folder import Folder
from raykd.study.starts import PRETRAINED
from raykd.study.study import Study

TIMEOUT_S = 90.0  # seconds that the nodes have for each question
MAX_CLOCK_SKEW_S = 2.0  # seconds between clocks; trials' times and budgets are compared across nodes
PAYLOAD_BYTES = 32 * 2**20  # bytes, to measure with


class NodeProbe:
    """A process on one node."""

    def collect_facts(self, request: node.NodeRequest) -> dict[str, Any]:
        """Returns the node's facts, as plain data."""
        return node.collect_facts(request)

    def read_clock(self) -> float:
        """Returns the node's time, in Unix seconds."""
        return time.time()

    def put_object(self, size: int) -> list[Any]:
        """Returns a reference to an object of so many bytes, in this node's store."""
        import ray

        return [ray.put(os.urandom(size))]

    def fetch_object(self, references: list[Any]) -> float:
        """Returns the seconds that it takes to fetch the object."""
        import ray

        began = time.perf_counter()
        ray.get(references[0])
        return time.perf_counter() - began


def examine(address: str | None, storage: str, root: Path, study: Study | None) -> Health:
    """Asks every node of the cluster at `address` (None: this machine alone); nothing is trained.

    With a study, also whether its data, its teacher and its workers have their place.
    """
    health = Health(address or "this machine")
    with ExitStack() as session:
        try:
            session.enter_context(connect(address))
        except UserError as error:
            health.add_error("cluster", "reachable", error.lines[0], "set the variable before the verb")
        except ConnectionError as error:
            health.add_error(
                "cluster", "reachable", first_line(error),
                "start the head (cluster/README.md), check host:port; set RAY_AUTH_MODE and the token so",
            )  # fmt: skip
        else:
            _examine(health, address, storage, root, study)
    return health


def _examine(health: Health, address: str | None, storage: str, root: Path, study: Study | None) -> None:
    import ray

    _check_authentication(health, address)
    nodes = _list_nodes(health)
    if study is not None:
        _check_room(health, study)
    request = node.NodeRequest(
        storage=Folder(storage).uri,
        token=_write_token(health, storage),
        data_root=str(root.absolute()),
        data=study.recipe.to_dict()["data"] if study else None,
        weights=_list_weight_files(study),
        plugins=plugins.get_sources(),
    )
    probes = {name: _start_probe(node) for name, node in nodes.items()}
    answers = _collect_answers(
        health, {name: probe.collect_facts.remote(request) for name, probe in probes.items()}
    )
    for name, answer in answers.items():
        findings.add_node_facts(health, name, answer)
        findings.add_gpu_sharing(health, name, answer, study)
    findings.add_mixtures(health, list(answers.values()), study)
    alive = {name: probe for name, probe in probes.items() if _check_clock(health, name, probe)}
    _check_network(health, alive)
    _remove_token(storage)
    for probe in probes.values():
        ray.kill(probe)


def _check_authentication(health: Health, address: str | None) -> None:
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":  # Ray itself sets it where it chose so
        health.add_ok("cluster", "authentication", "by token")
    elif address is None:
        health.add_ok("cluster", "authentication", "off; the session listens on this machine only")
    else:
        health.add_warning(
            "cluster", "authentication", "off: whoever reaches its ports can run programs there",
            "start every node with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN_PATH (cluster/README.md)",
        )  # fmt: skip


def _list_nodes(health: Health) -> dict[str, dict[str, Any]]:
    """The living nodes, by name; the dead are named, and those that soon will be."""
    import ray

    nodes: dict[str, dict[str, Any]] = {}
    draining = list_draining_nodes()
    for info in ray.nodes():
        name = f"{info['NodeManagerHostname']}-{info['NodeID'][:4]}"
        if info["NodeID"] in draining and info["Alive"]:
            health.add_warning(
                name, "reachable", "is about to be taken away: it takes no trials any more",
                "nothing: its trials write their state and go on elsewhere",
            )  # fmt: skip
        elif info["Alive"]:
            nodes[name] = info
        else:
            health.add_warning(
                name, "reachable", f"left the cluster (it was {info['NodeManagerAddress']})",
                "start it again if it is missed; trials that it held go on elsewhere",
            )  # fmt: skip
    return nodes


def _check_room(health: Health, study: Study) -> None:
    nodes = list_nodes()
    resolution = resolve(study, nodes)
    shares = "; small nets get a part of a GPU, measured at launch" if may_share_gpu(study, nodes) else ""
    if find_misfit(resolution.study, nodes):
        health.add_error(
            "cluster", "room", resolution.description,
            "add nodes, or ask for less: --set cluster/workers=..., cluster/cpus=..., cluster/gpus=...",
        )  # fmt: skip
    else:
        health.add_ok("cluster", "room", resolution.description + shares)
    if idle := describe_idle_gpus(study, nodes):
        health.add_warning("cluster", "GPUs", idle, "--set cluster/gpus=auto")


def _list_weight_files(study: Study | None) -> list[tuple[str, str, str | None]]:
    """The files of weights that every node must read: of which net, where, and their hashes."""
    nets = (study.recipe.student, *study.recipe.list_teachers()) if study else ()
    return [
        (net.role, net.weights, net.sha256)
        for net in nets
        if net.weights and net.weights != PRETRAINED and not net.weights.startswith(("http:", "https:"))
    ]


def _write_token(health: Health, storage: str) -> str:
    """A token written into the storage here, that every node must find there; "" where it cannot be."""
    token = f"{platform.node()}-{os.getpid()}-{time.time_ns()}"
    try:
        Folder(storage).check_reachable()
        Folder(storage).write(node.TOKEN_FILE, token.encode())
    except (OSError, ValueError) as error:
        health.add_error(
            "cluster", "storage", f"{storage} cannot be written from here: {first_line(error)}",
            "give --storage a folder or URI that this user may write, and its credentials in the environment",
        )  # fmt: skip
        return ""
    health.add_ok("cluster", "storage", f"{storage} can be written from here")
    return token


def _remove_token(storage: str) -> None:
    try:
        Folder(storage).remove(node.TOKEN_FILE)
    except (OSError, ValueError):
        return  # the storage's error is among the findings already


def _start_probe(node: dict[str, Any]) -> Any:
    """A process on one node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    remote_class = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=strategy)(NodeProbe)
    return remote_class.remote()


def _collect_answers(health: Health, requests: dict[str, Any]) -> dict[str, Any]:
    """Returns the nodes' answers that came in time; nodes that fail or are silent are named."""
    import ray

    done, _ = ray.wait(list(requests.values()), num_returns=len(requests), timeout=TIMEOUT_S)
    answers = {}
    for name, reference in requests.items():
        if reference not in done:
            health.add_error(
                name, "answers", f"did not answer in {TIMEOUT_S:g} s",
                "look at the node and at its raylet's log; remove it, or start it again",
            )  # fmt: skip
            continue
        try:
            answers[name] = ray.get(reference)
        except ray.exceptions.RayError as error:
            health.add_error(
                name, "answers", f"no worker could be started there: {_last_line(error)}",
                "install the same raykd and its requirements.lock on the node, or use cluster/Dockerfile's "
                "image",
            )  # fmt: skip
    return answers


def _check_clock(health: Health, name: str, probe: Any) -> bool:
    """Whether the node answers; its clock against ours, to half a round trip."""
    import ray

    try:
        ray.get(probe.read_clock.remote(), timeout=TIMEOUT_S)
        began = time.time()
        node_time = ray.get(probe.read_clock.remote(), timeout=TIMEOUT_S)
        ended = time.time()
    except (ray.exceptions.RayError, TimeoutError):
        return False  # named already
    skew, uncertainty = node_time - (began + ended) / 2, (ended - began) / 2
    message = f"{1000 * skew:+.0f} ms against here, give or take {1000 * uncertainty:.0f} ms"
    if abs(skew) - uncertainty > MAX_CLOCK_SKEW_S:
        health.add_warning(name, "clock", message, "let the node keep time by NTP")
    else:
        health.add_ok(name, "clock", message)
    return True


def _check_network(health: Health, probes: dict[str, Any]) -> None:
    """Bandwidth from each node to the next, the last to the first."""
    import ray

    names = list(probes)
    if len(names) < 2:
        return
    for sender, receiver in zip(names, [*names[1:], names[0]], strict=True):
        try:
            references = ray.get(probes[sender].put_object.remote(PAYLOAD_BYTES), timeout=TIMEOUT_S)
            seconds = ray.get(probes[receiver].fetch_object.remote(references), timeout=TIMEOUT_S)
        except (ray.exceptions.RayError, TimeoutError) as error:
            health.add_error(
                receiver, "network", f"nothing came from {sender}: {first_line(error)}",
                "open the nodes' ports to each other (cluster/README.md, ports)",
            )  # fmt: skip
            continue
        rate = PAYLOAD_BYTES / 1e6 / seconds
        findings.add_speed(health, receiver, "network", f"{rate:.0f} MB/s from {sender}", rate)


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
