"""By what program and on what machine: the provenance that lies beside every result."""

import os
import platform
import socket
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raykd.paths import PACKAGE
from raykd.store.file_names import CHECKPOINT, ENVIRONMENT
from raykd.store.folder import Folder
from raykd.store.processors import count_cpus, name_device


def find_commit(package: Path) -> str:
    """Returns the commit of the checkout whose top level holds the package, with "-dirty" if it was changed.

    "" for an installed package, also where some other repository encloses it.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != package.resolve().parent:
        return ""
    return _git(package, "describe", "--always", "--dirty", "--abbrev=12")


def _git(folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        git = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, env=environment
        )
    except OSError:
        return ""
    return git.stdout.strip() if git.returncode == 0 else ""


# Read when a process loads its code: the working tree may change while it runs.
COMMIT = find_commit(PACKAGE)


def record_provenance() -> dict[str, Any]:
    """Returns the program and the machine: commit, versions, hardware, time."""
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "raykd": version("raykd"),
        "commit": COMMIT or f"none: raykd {version('raykd')} as installed",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "ray", "optuna")},
        "hardware": ", ".join(devices) or f"{platform.machine()} CPU, {count_cpus()} cores",
        "started": time.strftime("%FT%T%z"),
    }


def write_environment(folder: Folder, bf16: bool, device: Any) -> None:
    """Writes what a trial that begins, or goes on from its checkpoint, computes in and on.

    Trials whose precisions or kinds of device differ do not compare exactly. A trial that goes on with
    others than before names both: "float32, then bfloat16".
    """
    content = {"precision": "bfloat16" if bf16 else "float32", "device": name_device(device)}
    before = (folder.read_json(ENVIRONMENT) if folder.exists(CHECKPOINT) else None) or content
    for key, value in content.items():
        same = before[key].endswith(value)
        content[key] = before[key] if same else f"{before[key]}, then {value}"
    folder.write_json(ENVIRONMENT, content | {"hostname": socket.gethostname()})
