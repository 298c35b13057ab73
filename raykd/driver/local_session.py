"""Whether a Ray session of this machine's own can start: asked before anything is begun.

Ray itself says so only while it starts, when a run has begun.
"""

import os
import sys
import time
from pathlib import Path

from raykd.errors import UserError

MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # of a Unix socket's path
AUTH_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def check_local_session(address: str | None) -> None:
    """Checks the temporary folder and the home folder; not for a cluster or session that runs already.

    Raises:
        UserError: Ray's sockets would lie at too long a path, or it has no place for its token.
    """
    if starts_session(address):
        _check_socket_path()
        _check_home()


def starts_session(address: str | None) -> bool:
    """Returns whether what runs there starts a session of its own, of this machine alone."""
    return not address and "RAY_ADDRESS" not in os.environ and not has_session()


def has_session() -> bool:
    """Returns whether this process has a Ray session already: a notebook's, a script's."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def get_ray_temp_folder() -> Path:
    """Returns the folder in which Ray makes a folder for each session of this machine."""
    return Path(os.environ.get(_get_variable(), "/tmp")) / "ray"


def _get_variable() -> str:
    """The variable that names the temporary folder, as Ray chooses; "" when none is set."""
    names = ("RAY_TMPDIR", "TMPDIR") if sys.platform.startswith("linux") else ("RAY_TMPDIR",)
    return next((name for name in names if name in os.environ), "")


def _check_socket_path() -> None:
    name = _get_variable()
    session = f"session_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{0:06}_{os.getpid()}"
    path = get_ray_temp_folder() / session / "sockets/plasma_store"
    if (length := len(os.fsencode(path))) > MAX_SOCKET_BYTES:
        reason = f"its sockets' paths would have {length} bytes, and may have {MAX_SOCKET_BYTES}"
        raise UserError([f"{name}={os.environ[name]}: too long for Ray ({reason}): set RAY_TMPDIR=/tmp"])


def _check_home() -> None:
    """A container's user may have no home, or / as one: Ray writes a token into it, raykd its caches."""
    try:
        home = Path.home()
        usable = (home / ".ray/auth_token").exists() or os.access(home, os.W_OK | os.X_OK)
    except (RuntimeError, OSError):  # neither HOME nor a passwd entry; not to be looked into
        usable = False
    if not usable and not any(name in os.environ for name in AUTH_VARIABLES):
        place = f"HOME={os.environ['HOME']}" if "HOME" in os.environ else "HOME is not set"
        raise UserError([f"{place}: Ray needs a home folder that it can write to: set HOME to one"])
