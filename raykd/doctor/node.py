"""What `raykd doctor` learns on a node: versions, devices, space, data, teacher, storage."""

import json
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

from raykd import data, plugins
from raykd.driver import mps
from raykd.errors import UserError, first_line
from raykd.store.folder import Folder
from raykd.store.processors import count_cpus, has_bf16, name_device
from raykd.training.start import compute_sha256

PACKAGES = ("raykd", "torch", "torchvision", "ray", "optuna", "numpy", "pyarrow", "pydantic")
TOKEN_FILE = ".doctor"  # a file in the storage
PAYLOAD_BYTES = 16 * 2**20  # bytes that are written to the storage and read back


@dataclass(frozen=True)
class NodeRequest:
    """What a node shall check; plain data."""

    storage: str
    token: str  # what TOKEN_FILE in the storage holds; "" where it could not be written
    data_root: str
    data: dict[str, Any] | None  # the study's data set
    weights: list[tuple[str, str, str | None]]  # the study's files: student or teacher, path, SHA-256
    plugins: dict[str, str]  # the texts of plugin files, by name


class Check(NamedTuple):
    """Something that a study needs of a node, and whether it is so."""

    name: str
    passed: bool
    message: str
    fix: str = ""  # in words, where it did not pass


def collect_facts(request: NodeRequest) -> dict[str, Any]:
    """Returns what a node can say of itself and of what a study needs there, as plain data."""
    storage_check = _check_storage(request)
    checks = [*([storage_check] if storage_check else []), _check_data(request)]
    checks += [_check_weights(*weights) for weights in request.weights]
    return {
        "versions": get_versions(),
        "devices": _describe_devices(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "mps": mps.can_share(),
        "cpu": name_device(torch.device("cpu")),
        "cpu_bf16": has_bf16(torch.device("cpu")),
        "memory": _read_memory(),
        "disk": {place: shutil.disk_usage(place).free for place in _list_folders(request)},
        "checks": [tuple(check) for check in checks],
        "storage_speed": _measure_storage_speed(request) if storage_check and storage_check.passed else None,
    }


def get_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that must be the same on every node."""
    return {"python": platform.python_version()} | {package: _get_version(package) for package in PACKAGES}


def _get_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "is missing"


def _describe_devices() -> str:
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    names = [f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus]
    return ", ".join([*names, f"{count_cpus()} CPU cores ({platform.machine()})"])


def _read_memory() -> tuple[int, int]:
    """Bytes that programs can have, and all there are."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {words[0]: int(words[1]) for words in lines}
    return 1024 * kib["MemAvailable:"], 1024 * kib["MemTotal:"]


def _list_folders(request: NodeRequest) -> list[str]:
    """Folders of this node that a study fills."""
    local = Folder(request.storage).local
    folders = [Path("/tmp"), Path(request.data_root), *([local] if local else [])]
    existing = [next(p for p in (path, *path.parents) if p.exists()) for path in folders]
    return list(dict.fromkeys(map(str, existing)))


def _check_storage(request: NodeRequest) -> Check | None:
    """Whether this node sees what was written elsewhere, and may write."""
    if not request.token:
        return None
    folder, own_file = Folder(request.storage), f"{TOKEN_FILE}-{platform.node()}-{os.getpid()}"
    try:
        folder.check_reachable()
        token = folder.read(TOKEN_FILE).decode() if folder.exists(TOKEN_FILE) else ""
        folder.write(own_file, b"written")
        folder.remove(own_file)
    except (UserError, OSError) as error:
        message = f"{request.storage} cannot be used from here: {first_line(error)}"
        return Check("storage", False, message, "let this node's user write there; mount it, or name a URI")
    if token != request.token:
        message = f"{request.storage} is another folder here: what was written elsewhere is not seen"
        return Check("storage", False, message, "give --storage a mount that all nodes share, or a URI")
    return Check("storage", True, f"{request.storage} is shared, and can be written from here")


def _measure_storage_speed(request: NodeRequest) -> tuple[float, float]:
    """MB/s, written and read back (from this machine's cache, where it keeps one)."""
    folder, own_file = Folder(request.storage), f"{TOKEN_FILE}-{platform.node()}-{os.getpid()}"
    payload = os.urandom(PAYLOAD_BYTES)
    began = time.perf_counter()
    folder.write(own_file, payload)
    written = time.perf_counter()
    folder.read(own_file)
    read = time.perf_counter()
    folder.remove(own_file)
    return PAYLOAD_BYTES / 1e6 / (written - began), PAYLOAD_BYTES / 1e6 / (read - written)


def _check_data(request: NodeRequest) -> Check:
    """The study's data set is read as a trial would; without a study, the root must be a folder."""
    if request.data is None:
        if Path(request.data_root).is_dir() and os.access(request.data_root, os.R_OK | os.X_OK):
            return Check("data", True, f"{request.data_root} can be read")
        return Check(
            "data", False, f"{request.data_root}: no folder that can be read",
            "put the data sets there on every node, or name the folder by --data or RAYKD_DATA",
        )  # fmt: skip
    try:
        plugins.use(request.plugins)
        spec = TypeAdapter(data.AnyData).validate_json(json.dumps(request.data))
        info = data.load(spec, Path(request.data_root), download=False).info
    except UserError as error:
        return Check("data", False, "; ".join(error.lines), "put the same data under --data on every node")
    message = f"{spec.name} in {request.data_root}: {info.images:,} training images of {info.classes} classes"
    return Check("data", True, message)


def _check_weights(role: str, weights: str, sha256: str | None) -> Check:
    path = Path(weights.removeprefix("file://")).expanduser()
    if not path.is_file():
        fix = "name the checkpoint by a path that all nodes share, or by its URL"
        return Check(role, False, f"{path.absolute()}: no such file", fix)
    if sha256 is not None and compute_sha256(path) != sha256:
        fix = "copy the right checkpoint there, or say its hash (sha256)"
        return Check(role, False, f"{path}: its SHA-256 is not {sha256}", fix)
    return Check(role, True, f"{path} is there" + (", by its hash" if sha256 else ""))
