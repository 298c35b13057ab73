"""What a checkpoint file holds: the weights of a net, found by their names; no code of the file runs.

Files of torch.save and safetensors, told apart by their content. The weights are the one part of the file
whose names, less a prefix that all of them share (`module.`, `model.`, `student.`), are the net's.
"""

import argparse
import mmap
import pathlib
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from raykd.errors import first_line
from raykd.models._weights import leave_out

ADVICE = "save the weights by torch.save(model.state_dict(), PATH)"
MAX_DEPTH = 4  # of dictionaries in dictionaries
HEAD_BYTES = 4096
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6, or without its zip format
SIGNATURES = (  # of files that people give for a checkpoint
    (rb"version https://git-lfs", "a Git LFS pointer: fetch the file itself by git lfs pull"),
    (rb"(?i)\s*(<!doctype html|<html|<head)", "a page of HTML: the download was not of the file itself"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf", "a compressed archive: unpack it"),
    (rb"\x89HDF", "HDF5 (Keras), not weights of torch"),
    (rb"\x93NUMPY", "a NumPy array, not weights of torch"),
    (rb"\x80(?!\x02\x8a\nl\xfc)", f"a pickle that torch.save did not write: {ADVICE}"),
)


def _make_dict(*_: Any) -> dict[Any, Any]:
    """Stands for defaultdict, whose factory nobody needs."""
    return {}


# Beside tensors people save options, scores and paths. These types only hold values, and none opens a file.
SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *(
        type(np.dtype(code))
        for code in ("?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d", "U", "S")
    ),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    *((np.empty(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")),
    *(
        (getattr(pathlib, f"Pure{system}Path"), f"{module}.{pure}{system}Path")
        for module in ("pathlib", "pathlib._local")
        for system in ("Posix", "Windows")
        for pure in ("", "Pure")
    ),
    (_make_dict, "collections.defaultdict"),
    *((kind, f"builtins.{kind.__name__}") for kind in (int, float, str, bool, list, tuple, dict)),
]


def read_weights(path: Path, net_state: Mapping[str, Tensor], without: str = "") -> dict[str, Any]:
    """Returns the weights in a file that are nearest to a net's, under the net's names.

    All names and shapes of the net where the file has them, else those that most of its names are among.

    Args:
        path: The file.
        net_state: The net's own state_dict: names and shapes.
        without: A module of the net, whose weights are left out whether the file has them or not; "": none.

    Raises:
        ValueError: The file holds no weights, or those of this net more than once; the message says what it
            holds.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"holds {_describe(content)}, no state_dict: {ADVICE}")
    if without:
        net_state = leave_out(without, net_state)
    parts = {
        place: leave_out(without, part) if without else part
        for place, part in _list_parts(content, net_state)
    }
    if not parts:
        raise ValueError(f"holds {_describe(content)} and no weights: {ADVICE}")
    return _choose(parts, net_state)


def _load(path: Path) -> Any:
    """What the file holds. ValueError says in words what it is instead of a checkpoint."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise ValueError("is an empty file")
    is_safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32
    if not is_safetensors and not head.startswith((b"PK", TORCH_LEGACY)):
        raise ValueError(f"is {_name_foreign(head)}")
    try:
        return safetensors.torch.load_file(path) if is_safetensors else _load_torch(path)
    except Exception as error:  # a damaged file raises anything
        if archive := _name_archive(path):
            raise ValueError(f"is {archive}: {ADVICE}") from None
        # torch's advice stands first, and long
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
        if blocked := re.search(r"(?:GLOBAL |<class ')([\w.]+)", reason):
            raise ValueError(f"holds an object of {blocked[1]}, whose code is not run: {ADVICE}") from None
        raise ValueError(f"is not a readable checkpoint ({first_line(ValueError(reason))})") from None


def _load_torch(path: Path) -> Any:
    with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(SAFE_GLOBALS):
        warnings.simplefilter("ignore")  # about old pickle protocols
        return torch.load(file, map_location="cpu", weights_only=True)


def _name_foreign(head: bytes) -> str:
    """What a file is that neither torch nor safetensors wrote, by its first bytes."""
    for pattern, kind in SIGNATURES:
        if re.match(pattern, head):
            return kind
    text = head.decode("utf-8", "ignore")
    is_text = b"\0" not in head and all(c.isprintable() or c.isspace() for c in text)
    return f"{'text' if is_text else 'of no kind that is known here'}, not weights: {ADVICE}"


def _name_archive(path: Path) -> str:
    """What a file of torch is that holds more than weights, or a ZIP file of others; "" when neither."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:  # also the form of torch before 1.6
        names = ["data.pkl"]
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript archive"
    if any(name.endswith(("archive_format", "models/model.json")) for name in names):
        return "an archive of torch.export"
    if not any(name.endswith("data.pkl") for name in names):
        return "a ZIP archive that torch did not write"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # the pickle is not compressed; that of a state_dict names no class of torch.nn
        return "a whole pickled model" if content.find(b"torch.nn.modules.") >= 0 else ""


def _describe(value: Any) -> str:
    """A value that is no state_dict, in words."""
    if value is None:
        return "None"
    if isinstance(value, Mapping) and value:
        keys = ", ".join(f"{key!r:.40}" for key in list(value)[:5])
        return f"a dictionary of {len(value)} ({keys}{', ...' if len(value) > 5 else ''})"
    if isinstance(value, Mapping):
        return "an empty dictionary"
    if isinstance(value, Tensor):
        return f"one tensor of shape {list(value.shape)}"
    return f"a value of type {type(value).__name__}"


def _list_parts(
    content: Mapping[Any, Any], net_state: Mapping[str, Tensor], place: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of the file that may be the weights: its place, and its tensors by name without prefix."""
    tensors = {
        name.replace("_orig_mod.", ""): value  # torch.compile's, wherever in a name it stands
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    ends = (next(iter(net_state)), list(net_state)[-1])
    prefixes = {name.removesuffix(end) for name in tensors for end in ends if name.endswith(f".{end}")}
    for prefix in ["", *sorted(prefixes)] if tensors else []:
        yield (
            place + prefix,
            {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)},
        )
    for key, value in content.items():
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _list_parts(value, net_state, f"{place}{key}/", depth + 1)


def _choose(parts: dict[str, dict[str, Any]], net_state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The part that is the net's. An average (EMA) beside the weights is passed over."""
    counters = {name for name in net_state if name.endswith(".num_batches_tracked")}  # old files lack them
    named = {
        place: part
        for place, part in parts.items()
        if part.keys() <= net_state.keys() and net_state.keys() - part.keys() <= counters
    }
    shaped = {
        place: part
        for place, part in named.items()
        if all(value.shape == net_state[name].shape for name, value in part.items())
    }
    fitting = shaped or named
    if len(fitting) > 1:
        fitting = {place: part for place, part in fitting.items() if "ema" not in place} or fitting
    if len(fitting) > 1:
        places = " and ".join(place.rstrip("./") or "its top" for place in fitting)
        raise ValueError(f"holds weights of this net more than once, under {places}: {ADVICE}")
    if fitting:
        return next(iter(fitting.values()))
    return max(parts.values(), key=lambda part: (len(part.keys() & net_state.keys()), -len(part)))


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError that names the weights which hold NaN or infinity."""
    spoilt = [name for name, value in weights.items() if not value.isfinite().all()]
    if spoilt:
        names = ", ".join(spoilt[:3]) + (", ..." if len(spoilt) > 3 else "")
        raise ValueError(f"{len(spoilt)} of its tensors hold NaN or infinity ({names})")
