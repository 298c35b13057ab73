"""What a killed driver leaves in the temporary folder: removed by the next launch or resume of its run.

A folder is removed only when the run's own record, or a mark in the folder, says that it is of this run, and
the process that made it, on this machine, is dead. (pid, start) names a process, on Linux; elsewhere nothing
is removed.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raykd.driver.local_session import get_ray_temp_folder
from raykd.store import file_names
from raykd.store.folder import Folder

MARK = "raykd.json"  # in each folder: of which run, made by which process


def identify_process(pid: int) -> dict[str, Any] | None:
    """Returns what names a process of this machine, now and ever; None when it is dead or cannot be named."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
    dead = stat[0] in "ZX"
    return None if dead else {"pid": pid, "start": int(stat[19]), "boot": boot, "namespace": namespace}


@contextmanager
def temporary_folder(owner: str) -> Iterator[str]:
    """Yields a temporary folder of a run, or of something in it; removed at the end, or by `remove_dead`.

    Args:
        owner: The URI of the run, trial or retraining.
    """
    with tempfile.TemporaryDirectory(prefix="raykd-", ignore_cleanup_errors=True) as name:
        mark = {"owner": owner, "process": identify_process(os.getpid())}
        (Path(name) / MARK).write_text(json.dumps(mark))
        yield name


def record_session(run: Folder, session_folder: str = "") -> None:
    """Writes into the run which process starts a Ray session, and that session's folder once it is known."""
    process = identify_process(os.getpid())
    run.write_json(file_names.SESSION, {"process": process, "folder": session_folder})


def remove_dead(run: Folder) -> None:
    """Removes what dead processes of this run left on this machine; to be called by who holds its lock."""
    for path in Path(tempfile.gettempdir()).glob("raykd-*"):
        mark = _read_mark(path)
        if f"{mark.get('owner')}/".startswith(f"{run.uri}/") and _is_dead(mark.get("process")):
            shutil.rmtree(path, ignore_errors=True)
    record = run.read_json(file_names.SESSION) or {}
    process = record.get("process")
    if process is None or not _is_dead(process):
        return
    if record["folder"]:
        shutil.rmtree(record["folder"], ignore_errors=True)
    else:  # killed while Ray started: its folder has the process's number in its name
        for path in get_ray_temp_folder().glob(f"session_*_{process['pid']}"):
            if identify_process(process["pid"]) is None and path.stat().st_mtime >= _start_time(process):
                shutil.rmtree(path, ignore_errors=True)
    run.remove(file_names.SESSION)


def _read_mark(folder: Path) -> dict[str, Any]:
    try:
        mark = json.loads((folder / MARK).read_text())
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _is_dead(process: dict[str, Any] | None) -> bool:
    """Whether a process of this machine is dead; False of one that cannot be told from here."""
    own = identify_process(os.getpid())
    if process is None or own is None or any(process[key] != own[key] for key in ("boot", "namespace")):
        return False
    return identify_process(process["pid"]) != process


def _start_time(process: dict[str, Any]) -> float:
    """Unix time at which a process of this boot began, less a second."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + float(process["start"]) / os.sysconf("SC_CLK_TCK") - 1
