"""By what program and on what machine: the stamp that lies beside every result."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def commit_of(package: Path) -> str:
    """The commit of the checkout whose top level holds the package, and whether it was changed; "" for an
    installed package, also where some other repository encloses it.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != package.resolve().parent:
        return ""
    return _git(package, "describe", "--always", "--dirty", "--abbrev=12")


def _git(folder: Path, *words: str) -> str:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        run = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, env=ours
        )
    except OSError:
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


# Asked when a process loads its code: the working tree may change while it runs.
COMMIT = commit_of(Path(__file__).parents[1])


def stamp() -> dict[str, Any]:
    """The program and the machine: commit, versions, hardware, time."""
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "raykd": version("raykd"),
        "commit": COMMIT or f"none: raykd {version('raykd')} as installed",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "ray", "optuna")},
        "hardware": ", ".join(devices) or f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "begun": time.strftime("%FT%T%z"),
    }
