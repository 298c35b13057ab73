"""Teachers: how their weights are loaded, and whose outputs a batch gets: a live forward pass's, or none."""

import hashlib
import json
import pickle
import urllib.parse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor

from raykd import models
from raykd.batch import Batch, Head, Outputs, OutputShapes, empty_outputs
from raykd.data import ViewIndex
from raykd.errors import UserError, first_line


@dataclass
class CacheStats:
    """What a teacher's cache has given so far."""

    hits: int = 0  # views whose outputs were in the cache
    misses: int = 0  # views that took a forward pass
    seconds_saved: float = 0.0  # by the hits


class Teacher(Protocol):
    """What a student's training needs of a teacher: its Outputs of a batch, and their shapes."""

    shapes: OutputShapes
    cache_stats: CacheStats

    def get_outputs(self, batch: Batch) -> Outputs: ...


class NoTeacher:
    """Empty outputs, for methods that need no teacher."""

    shapes = OutputShapes(0, 0, ())

    def __init__(self) -> None:
        self.cache_stats = CacheStats()

    def get_outputs(self, batch: Batch) -> Outputs:
        return empty_outputs(len(batch.labels), batch.images.device)


class LiveTeacher:
    """A frozen net that every batch is passed through."""

    def __init__(self, net: models.Net, image_size: int, device: torch.device, bf16: bool) -> None:
        self.shapes, self.cache_stats = net.shapes(image_size), CacheStats()
        self._net = net.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self._device, self._bf16 = device, bf16

    def get_outputs(self, batch: Batch) -> Outputs:
        self.cache_stats.misses += len(batch.images)
        return self.forward(batch.images)

    def forward(self, images: Tensor) -> Outputs:
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            outputs: Outputs = self._net(images)
            return outputs

    @property
    def head(self) -> Head:
        """The classifier's own tensors."""
        weight, bias = (self._net.get_parameter(f"{self._net.head}.{name}") for name in ("weight", "bias"))
        return Head(weight, bias)

    def compute_cache_key(self, view_index: ViewIndex) -> str:
        """A hash of all that decides the outputs for the views of an index."""
        digest = hashlib.sha256()
        settings = [torch.__version__, self._device.type, self._bf16, view_index.key]
        digest.update(json.dumps([*settings, type(self._net).__qualname__, self.shapes]).encode())
        for name, value in sorted(self._net.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()[:32]


def load(net: str, weights: str, classes: int, sha256: str | None, cache: Path) -> models.Net:
    """A net with the weights of a checkpoint file or URL; no code of the checkpoint runs.

    Reads safetensors, and RepDistiller's and mdistiller's .pth. UserError names the file and what is wrong
    with it.
    """
    path = _fetch(weights, sha256, cache)
    if not path.is_file():
        raise UserError([f"teacher {net}: {weights}: no such file"])
    if sha256 is not None and compute_sha256(path) != sha256:
        raise UserError(
            [f"teacher {net}: {weights}: its SHA-256 is {compute_sha256(path)}, expected {sha256}"]
        )
    teacher = models.make(net, classes)
    try:
        models.load_weights(teacher, _read_state_dict(path), source=f"teacher {net}: {weights}")
    except (OSError, RuntimeError, EOFError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(
            [f"teacher {net}: {weights}: not a readable checkpoint ({first_line(error)})"]
        ) from None
    except ValueError as error:
        raise UserError([str(error)]) from None
    return teacher


def _read_state_dict(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickle protocols, which load or are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RuntimeError(f"holds more than tensors, or is damaged: {first_line(error)}") from None


def _fetch(weights: str, sha256: str | None, cache: Path) -> Path:
    """The file itself, or a URL's copy in the cache."""
    url = urllib.parse.urlparse(weights)
    if url.scheme not in ("http", "https"):
        return Path(weights.removeprefix("file://")).expanduser()
    target = cache / hashlib.sha256(weights.encode()).hexdigest()[:16] / Path(url.path).name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(weights, str(target), hash_prefix=sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError([f"teacher: {weights}: could not be fetched ({first_line(error)})"]) from None
    return target


def compute_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
