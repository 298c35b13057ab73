"""Failures of a trial: what its failure.json says, and which are no failures of its own."""

import re
import traceback

import torch.distributed as dist

from raykd.errors import first_line, shorten
from raykd.store.folder import StorageError
from raykd.training.nonfinite import NonFiniteLoss

NCCL_MISUSE = re.compile("ncclInvalid(Usage|Argument)|ncclUnhandledCudaError")
PEER_IS_GONE = re.compile(
    "ncclRemoteError|remote p(eer|rocess)|connection (closed|reset)|timed? ?out", re.IGNORECASE
)


class ReporterGone(Exception):
    """The process that epochs are reported to is gone."""


class Preempted(Exception):
    """A machine of the training is about to be taken away; its state is written."""


FAILURE_KINDS: dict[type[Exception], str] = {
    NonFiniteLoss: "diverged",
    StorageError: "storage",
    Preempted: "preempted",
}


def is_lost(failure: dict[str, str] | None) -> bool:
    """Returns whether a training that ended so (its failure.json, if any) ended by no fault of its own."""
    return failure is None or failure["kind"] in ("storage", "preempted")


def is_preempted(failure: dict[str, str] | None) -> bool:
    """Returns whether a training ended so since its machine was to be taken away: it goes on elsewhere."""
    return failure is not None and failure["kind"] == "preempted"


def describe_failure(error: Exception) -> dict[str, str]:
    """Returns its kind, its reason in one line and its traceback."""
    kind = next(
        (kind for error_type, kind in FAILURE_KINDS.items() if isinstance(error, error_type)), "error"
    )
    is_misuse = NCCL_MISUSE.search(str(error))  # its last line has the cause
    message = shorten(str(error).splitlines()[-1]) if is_misuse else first_line(error)
    return {
        "kind": kind,
        "reason": f"{type(error).__name__}: {message}" if kind == "error" else message,
        "traceback": traceback.format_exc(),
    }


def is_other_process_gone(error: Exception) -> bool:
    """Returns whether the error only says that another process is gone."""
    return isinstance(error, ReporterGone) or is_collective_failure(error)


def is_collective_failure(error: Exception) -> bool:
    """Returns whether a collective operation failed as it does when another worker is gone."""
    if NCCL_MISUSE.search(str(error)):
        return False
    # Gloo raises a plain RuntimeError, which nothing but its source file in the text tells from others; the
    # process group may be destroyed by then, so that it cannot be asked
    return isinstance(error, dist.DistError) or bool(re.search(r"gloo/\S+\.(cc|h):\d+\]", str(error)))
