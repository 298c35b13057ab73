"""What of Ray is private and stands in for words that it has not: each fails when Ray changes it."""

import inspect

from ray.train import ControllerError
from ray.train.v2._internal import exceptions
from ray.train.v2._internal.execution import preemption


def test_draining_nodes_are_those_of_ray_trains_own_watcher() -> None:
    """On a cluster: test_nodes.py."""
    assert "return ray._private.state.state.get_draining_nodes()" in inspect.getsource(preemption)


def test_workers_that_found_no_room_are_known_by_their_number() -> None:
    failures = exceptions.WorkerGroupStartupTimeoutError(4), exceptions.WorkerHealthCheckFailedError("", None)
    errors = [ControllerError(failure) for failure in failures]
    assert [hasattr(error.controller_failure, "num_workers") for error in errors] == [True, False]
