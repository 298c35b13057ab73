"""What a worker takes of a Ray cluster: `auto` made numbers, and how many workers fit.

Pure functions over the nodes' resources, {"CPU": 16, "GPU": 1, "memory": bytes} each, as Ray names them.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from raykd.driver.preemption import list_draining_nodes
from raykd.study.cluster import Workers
from raykd.study.recipe import Recipe
from raykd.study.study import Study

Node = dict[str, float]
WORKER_MEMORY = 2**30  # bytes of a node's memory that a worker takes at least
MAX_PER_GPU = 8  # trials that share a GPU at most
GPU_OVERHEAD = 2**30  # bytes that a process takes on a GPU beside its tensors: context, kernels, fragments
GPU_MARGIN = 2.0  # what other points of a space may take, of the measured memory


class WorkerSize(NamedTuple):
    """What one worker takes."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        plural = "" if self.cpus == 1 else "s"
        gpus = f" and {self.gpus:g} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else ""
        return f"{self.cpus:g} CPU{plural}{gpus}"


def list_nodes() -> list[Node]:
    """Returns the resources of the nodes of the Ray session that live, and are not about to be taken away."""
    import ray

    draining = list_draining_nodes()
    return [n["Resources"] for n in ray.nodes() if n["Alive"] and n["NodeID"] not in draining]


def worker_slots(nodes: Sequence[Node], size: WorkerSize) -> int:
    """Returns how many workers of this size the nodes hold when nothing else runs there."""
    return sum(_count_fitting(node, size) for node in nodes)


def _count_fitting(node: Node, size: WorkerSize) -> int:
    counts = [int(node.get("CPU", 0) / size.cpus + 1e-9)]
    if size.gpus:
        free = node.get("GPU", 0)
        counts.append(int(free) * int(1 / size.gpus + 1e-9) if size.gpus < 1 else int(free / size.gpus))
    return min(counts)


def choose_workers(recipe: Recipe, workers: Workers, free: int) -> int:
    """Returns with how many workers a recipe is trained where so many are free.

    The most that share its batches evenly, and at least `workers.min`. (Ray Train's own elastic jobs take any
    number between their bounds, whatever a batch divides by.)
    """
    for count in range(min(workers.max, free), workers.min, -1):
        with suppress(ValueError):
            recipe.check_batch_size(count)
            return count
    return workers.min


def describe_nodes(nodes: Sequence[Node]) -> str:
    """Returns the nodes in words: "2 nodes, 16 CPUs, 1 GPU"."""
    counts = {"node": len(nodes)} | {kind: int(sum(n.get(kind, 0) for n in nodes)) for kind in ("CPU", "GPU")}
    return ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())


def gpu_share(peak_bytes: int, total_bytes: int) -> float:
    """Returns the part of a GPU that a trial of one worker takes: 1, 1/2, 1/4 or 1/8.

    Halves, as Ray counts to 1/10000 of a GPU, of which eight eighths make one and six sixths do not.

    Args:
        peak_bytes: What a training step allocated at most (torch.cuda.max_memory_allocated).
        total_bytes: The GPU's memory.
    """
    share = 1.0
    while share > 1 / MAX_PER_GPU and peak_bytes * GPU_MARGIN + GPU_OVERHEAD <= total_bytes * share / 2:
        share /= 2
    return share


def may_share_gpu(study: Study, nodes: Sequence[Node]) -> bool:
    """Returns whether `auto` may take a part of a GPU: workers of one trial never share one (NCCL's rule)."""
    is_single = all(count == 1 for count in study.worker_counts().values())
    return is_single and study.cluster.gpus == "auto" and has_gpus(nodes)


def choose_size(study: Study, nodes: Sequence[Node], share: float = 1.0) -> WorkerSize:
    """Returns what each worker of the study takes on these nodes; what the study states stays as it is.

    GPUs: one a worker where there are any, or the `share` of one where workers `may_share_gpu`; none with a
    share of 0 (torch can use none).
    CPUs: of a node with GPUs those that fall to each part; else as many as leave room for all trials of the
    budget at once, or for as many as the nodes hold at one CPU and WORKER_MEMORY a worker. At least 1.
    """
    cluster = study.cluster
    gpus = cluster.gpus
    if gpus == "auto":
        share = share if share == 0 or may_share_gpu(study, nodes) else 1.0
        gpus = share if has_gpus(nodes) else 0.0
    if cluster.cpus != "auto":
        return WorkerSize(cluster.cpus, gpus)
    if gpus:
        gpu_nodes = [node for node in nodes if _count_fitting(node, WorkerSize(1e-9, gpus))]
        parts = [node.get("CPU", 0) / _count_fitting(node, WorkerSize(1e-9, gpus)) for node in gpu_nodes]
        return WorkerSize(_floor_cpus(min(parts, default=1.0)), gpus)
    most = sum(int(min(node.get("CPU", 0), node.get("memory", 1e18) // WORKER_MEMORY)) for node in nodes)
    workers = max(study.worker_counts().values())
    wanted = max(workers, min(study.count_trials() * cluster.workers.max, most // workers * workers))
    largest = int(max((node.get("CPU", 0) for node in nodes), default=1))
    fitting = (cpus for cpus in range(largest, 0, -1) if worker_slots(nodes, WorkerSize(cpus, 0)) >= wanted)
    return WorkerSize(float(next(fitting, 1)), 0.0)


def has_gpus(nodes: Sequence[Node]) -> bool:
    """Returns whether any of the nodes has a GPU."""
    return any(node.get("GPU", 0) >= 1 for node in nodes)


def _floor_cpus(cpus: float) -> float:
    """Whole CPUs; below 1 hundredths, so that no GPU of a node with few CPUs stays idle."""
    return float(int(cpus)) if cpus >= 1 else max(0.01, int(cpus * 100) / 100)


def describe_choice(study: Study, nodes: Sequence[Node]) -> str:
    """Returns in words what a trial takes on these nodes; the study's `auto` must be numbers by now."""
    size, (fewest, most) = get_size(study), (study.cluster.workers.min, study.cluster.workers.max)
    slots = worker_slots(nodes, size)
    trials = max(slots // most, int(slots >= fewest))
    count = str(most) if fewest == most else f"{fewest} to {most}"
    each = f"{count} workers of {size} each" if most > 1 else str(size)
    return f"a trial takes {each}; {trials} at once on {describe_nodes(nodes)}"


def describe_idle_gpus(study: Study, nodes: Sequence[Node]) -> str:
    """Returns in words that a study which asks for CPUs leaves GPUs idle; "" when none are."""
    if not has_gpus(nodes) or study.cluster.gpus != 0:
        return ""
    count = int(sum(node.get("GPU", 0) for node in nodes))
    are = f"{count} GPUs stay" if count > 1 else "1 GPU stays"
    return f"{are} idle: the study asks for CPUs (cluster/gpus = 0); `auto` takes GPUs"


def get_size(study: Study) -> WorkerSize:
    """Returns what a worker takes, of a study whose `auto` is numbers by now."""
    return WorkerSize(study.cluster.num_cpus, study.cluster.num_gpus)


def find_misfit(study: Study, nodes: Sequence[Node]) -> str:
    """Returns why a trial, or a retraining, can never be placed on these nodes; "" when it can."""
    size = get_size(study)
    for place, workers in study.worker_counts().items():
        if worker_slots(nodes, size) < workers and place != "cluster/workers/max":
            kind = "retraining" if place == "confirm/workers" else "trial"
            return (
                f"{place}: a {kind} takes {workers} x ({size}), which never fits on this cluster: "
                f"{describe_nodes(nodes)}"
            )
    return ""
