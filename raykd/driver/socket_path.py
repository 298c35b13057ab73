"""Whether the temporary folder is short enough for the sockets of a Ray session on this machine."""

import os
import sys
import time

from raykd.errors import UserError

MAX_BYTES = 103 if sys.platform == "darwin" else 107  # of a Unix socket's path


def check_socket_path(address: str | None) -> None:
    """Raises UserError when a Ray session of this machine's own would put its sockets at too long a path.

    Ray itself says so only while it starts, when a run has begun. A cluster at an address has its sockets.
    """
    if address or os.environ.get("RAY_ADDRESS"):
        return
    names = ("RAY_TMPDIR", "TMPDIR") if sys.platform.startswith("linux") else ("RAY_TMPDIR",)
    name = next((name for name in names if name in os.environ), "")  # as Ray chooses
    session = f"session_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{0:06}_{os.getpid()}"
    path = f"{os.environ.get(name, '/tmp')}/ray/{session}/sockets/plasma_store"
    if (length := len(os.fsencode(path))) > MAX_BYTES:
        reason = f"its sockets' paths would have {length} bytes, and may have {MAX_BYTES}"
        raise UserError([f"{name}={os.environ[name]}: too long for Ray ({reason}): set RAY_TMPDIR=/tmp"])
