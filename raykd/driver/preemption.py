"""Nodes that are about to be taken away: spot machines, and whatever else was told to end.

Ray calls it draining: `ray start --block` that gets SIGTERM (Kubernetes, systemd, cluster/spot.sh) says so of
its node, as an autoscaler does. No place is given on such a node, and what runs there has until the deadline.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

INTERVAL_S = 1.0  # between two looks; Google Cloud gives 30 s in all


def list_draining_nodes() -> set[str]:
    """Returns the ids of the nodes of the Ray session that are about to be taken away."""
    import ray

    # Ray Train's own watcher asks here. Public is only what it says to Train's workers, not to Tune's trials
    return set(ray._private.state.state.get_draining_nodes())


@contextmanager
def watch_preemption(*nodes: str) -> Iterator[Callable[[], bool]]:
    """Watches this process's node and others for a `with` block.

    Args:
        nodes: The ids of others that it cannot do without.

    Yields:
        A function that returns whether one of them is about to be taken away.
    """
    import ray

    watched = {ray.get_runtime_context().get_node_id(), *nodes}
    notice, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL_S) and not notice.is_set():
            with suppress(Exception):  # a control store that does not answer says nothing of the node
                if watched & list_draining_nodes():
                    notice.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield notice.is_set
    finally:
        ended.set()
        thread.join()
