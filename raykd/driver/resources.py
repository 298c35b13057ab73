"""What the nodes of a Ray cluster hold: how many workers fit."""


def worker_slots(cpus: float, gpus: float) -> int:
    """How many workers of this size the living nodes hold when nothing else runs there."""
    import ray

    return sum(_count_fitting(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])


def _count_fitting(resources: dict[str, float], cpus: float, gpus: float) -> int:
    counts = [int(resources.get("CPU", 0) / cpus)]
    if gpus:
        free = resources.get("GPU", 0)
        counts.append(int(free) * int(1 / gpus + 1e-9) if gpus < 1 else int(free / gpus))
    return min(counts)


def describe_cluster() -> str:
    """The cluster in words."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (int(sum(node.get(kind, 0) for node in alive)) for kind in ("CPU", "GPU"))
    return f"{len(alive)} node{'s' * (len(alive) > 1)}, {cpus} CPUs, {gpus} GPUs"
