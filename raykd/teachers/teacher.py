"""Teachers: how their weights are loaded, and whose outputs a batch gets: a live forward pass's, or none."""

import hashlib
import json
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from raykd import models
from raykd.batch import Batch, Head, Outputs, OutputShapes, empty_outputs
from raykd.data import ViewIndex
from raykd.errors import MAX_LINE, UserError, first_line
from raykd.teachers.checkpoint import check_finite, read_weights


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

    def get_outputs(self, batch: Batch) -> Outputs:
        """Returns the outputs of each view in the batch, on its device."""
        ...


class NoTeacher:
    """Empty outputs, for methods that need no teacher."""

    shapes = OutputShapes(0, 0, ())

    def __init__(self) -> None:
        self.cache_stats = CacheStats()

    def get_outputs(self, batch: Batch) -> Outputs:
        """Returns outputs without numbers."""
        return empty_outputs(len(batch.labels), batch.images.device)


class LiveTeacher:
    """A frozen net that every batch is passed through."""

    def __init__(self, net: models.Net, image_size: int, device: torch.device, bf16: bool) -> None:
        self.shapes, self.cache_stats = net.shapes(image_size), CacheStats()
        self._net = net.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self._device, self._bf16 = device, bf16

    def get_outputs(self, batch: Batch) -> Outputs:
        """Returns the outputs of a forward pass, and counts its views as misses of a cache."""
        self.cache_stats.misses += len(batch.images)
        return self.forward(batch.images)

    def forward(self, images: Tensor) -> Outputs:
        """Returns the net's outputs for images [n, 3, size, size], without gradients."""
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            outputs: Outputs = self._net(images)
            return outputs

    @property
    def head(self) -> Head:
        """The classifier's own tensors: weight [classes, embedding], bias [classes]."""
        weight, bias = (self._net.get_parameter(f"{self._net.head}.{name}") for name in ("weight", "bias"))
        return Head(weight, bias)

    def compute_cache_key(self, view_index: ViewIndex) -> str:
        """Returns a hash of all that decides the outputs for the views of an index: 32 hexadecimal digits."""
        digest = hashlib.sha256()
        settings = [torch.__version__, self._device.type, self._bf16, view_index.key]
        digest.update(json.dumps([*settings, type(self._net).__qualname__, self.shapes]).encode())
        for name, value in sorted(self._net.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()[:32]


def load(net: str, weights: str, classes: int, sha256: str | None, cache: Path) -> models.Net:
    """Returns a net with the weights of a checkpoint file or URL; no code of the checkpoint runs.

    Args:
        net: The net's name.
        weights: A path, or a URL that is fetched into `cache`; what it may hold: teachers/checkpoint.py.
        classes: Of the data.
        sha256: What the file's hash must be; None: not checked.
        cache: A folder.

    Raises:
        UserError: One line that names the file and what is wrong with it, or what it holds instead.
    """
    path, source = _fetch(weights, sha256, cache), f"teacher {net}: {weights}"
    if not path.is_file():
        raise UserError([f"{source}: {'is a folder' if path.is_dir() else 'no such file'}"])
    if sha256 is not None and compute_sha256(path) != sha256:
        raise UserError([f"{source}: its SHA-256 is {compute_sha256(path)}, expected {sha256}"])
    teacher = models.make(net, classes)
    try:
        models.load_weights(teacher, read_weights(path, teacher.state_dict()))
        check_finite(teacher.state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError([f"{source}: {first_line(error, MAX_LINE)}"]) from None
    return teacher


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
    """Returns the SHA-256 of a file's content: 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
