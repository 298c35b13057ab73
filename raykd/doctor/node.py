"""What a node says of itself when `raykd doctor` asks: versions, devices, space, data, teacher, storage."""

import os
import platform
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter

from raykd import data
from raykd.errors import BadInput
from raykd.store.folder import Folder
from raykd.teachers.teacher import file_sha256

PACKAGES = ("raykd", "torch", "torchvision", "ray", "optuna", "numpy", "pyarrow", "pydantic")
TOKEN = ".doctor"  # a file in the storage
PAYLOAD = 16 * 2**20  # bytes that are written to the storage and read back


@dataclass(frozen=True)
class Asked:
    """What the doctor wants to know; plain data."""

    storage: str
    token: str  # what TOKEN in the storage holds; "" where it could not be written
    root: str  # where data sets lie
    data: dict[str, Any] | None  # the study's data set
    teacher: tuple[str, str | None] | None  # the study's checkpoint, and its SHA-256


class Check(NamedTuple):
    what: str
    right: bool
    told: str
    mend: str = ""


def facts(asked: Asked) -> dict[str, Any]:
    """All of it, as plain data."""
    stored = _storage(asked)
    checks = [*([stored] if stored else []), _data(asked)]
    if asked.teacher is not None:
        checks.append(_teacher(*asked.teacher))
    return {
        "versions": versions(),
        "devices": _devices(),
        "memory": _memory(),
        "disk": {place: shutil.disk_usage(place).free for place in _places(asked)},
        "checks": [tuple(check) for check in checks],
        "storage_speed": _storage_speed(asked) if stored and stored.right else None,
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "is missing"


def _devices() -> str:
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    names = [f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus]
    return ", ".join([*names, f"{os.cpu_count()} CPU cores ({platform.machine()})"])


def _memory() -> tuple[int, int]:
    """Bytes that programs can have, and all there are."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {words[0]: int(words[1]) for words in lines}
    return 1024 * kib["MemAvailable:"], 1024 * kib["MemTotal:"]


def _places(asked: Asked) -> list[str]:
    """Folders of this node that a study fills."""
    local = Folder(asked.storage).local
    wanted = [Path("/tmp"), Path(asked.root), *([local] if local else [])]
    there = [next(p for p in (path, *path.parents) if p.exists()) for path in wanted]
    return list(dict.fromkeys(map(str, there)))


def _storage(asked: Asked) -> Check | None:
    """Whether this node sees what was written elsewhere, and may write."""
    if not asked.token:
        return None
    folder, own = Folder(asked.storage), f"{TOKEN}-{platform.node()}-{os.getpid()}"
    try:
        folder.reach()
        seen = folder.read(TOKEN).decode() if folder.exists(TOKEN) else ""
        folder.write(own, b"written")
        folder.remove(own)
    except (BadInput, OSError) as error:
        told = f"{asked.storage} cannot be used from here: {str(error).splitlines()[0]}"
        return Check("storage", False, told, "let this node's user write there; mount it, or name a URI")
    if seen != asked.token:
        told = f"{asked.storage} is another folder here: what was written elsewhere is not seen"
        return Check("storage", False, told, "give --storage a mount that all nodes share, or a URI")
    return Check("storage", True, f"{asked.storage} is shared, and can be written from here")


def _storage_speed(asked: Asked) -> tuple[float, float]:
    """MB/s, written and read back (from this machine's cache, where it keeps one)."""
    folder, own = Folder(asked.storage), f"{TOKEN}-{platform.node()}-{os.getpid()}"
    payload = os.urandom(PAYLOAD)
    began = time.perf_counter()
    folder.write(own, payload)
    written = time.perf_counter()
    folder.read(own)
    read = time.perf_counter()
    folder.remove(own)
    return PAYLOAD / 1e6 / (written - began), PAYLOAD / 1e6 / (read - written)


def _data(asked: Asked) -> Check:
    """The study's data set is read as a trial would; without a study, the root must be a folder."""
    if asked.data is None:
        if Path(asked.root).is_dir() and os.access(asked.root, os.R_OK | os.X_OK):
            return Check("data", True, f"{asked.root} can be read")
        return Check(
            "data", False, f"{asked.root}: no folder that can be read",
            "put the data sets there on every node, or name the folder by --data or RAYKD_DATA",
        )  # fmt: skip
    spec = TypeAdapter(data.AnyData).validate_python(asked.data, strict=False)
    try:
        figures = data.load(spec, Path(asked.root), download=False).figures
    except BadInput as error:
        return Check("data", False, "; ".join(error.lines), "put the same data under --data on every node")
    told = f"{spec.name} in {asked.root}: {figures.images:,} training images of {figures.classes} classes"
    return Check("data", True, told)


def _teacher(weights: str, sha256: str | None) -> Check:
    path = Path(weights.removeprefix("file://")).expanduser()
    if not path.is_file():
        mend = "name the checkpoint by a path that all nodes share, or by its URL"
        return Check("teacher", False, f"{path.absolute()}: no such file", mend)
    if sha256 is not None and file_sha256(path) != sha256:
        mend = "copy the right checkpoint there, or say its hash in recipe/teacher/sha256"
        return Check("teacher", False, f"{path}: its SHA-256 is not {sha256}", mend)
    return Check("teacher", True, f"{path} is there" + (", by its hash" if sha256 else ""))
