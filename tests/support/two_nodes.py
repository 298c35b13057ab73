"""A Ray cluster of two nodes that run trials, on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.cluster_utils import Cluster


@contextmanager
def start_two_nodes() -> Iterator[Cluster]:
    """A head that runs no trials, and two nodes of one CPU each."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()


def kill_last_node(cluster: Cluster) -> None:
    """SIGKILL to the raylet of the node that came last, and to its workers."""
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
