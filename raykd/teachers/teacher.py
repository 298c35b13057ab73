"""Where teachers come from, and who answers for them: a live forward pass, or nobody."""

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
from raykd.batch import Batch, Head, Shapes, View, no_view
from raykd.data import Catalogue
from raykd.errors import BadInput


@dataclass
class Tally:
    """What was asked of a teacher so far."""

    hits: int = 0  # views that were found in its table
    misses: int = 0  # views that it looked at itself
    seconds_saved: float = 0.0  # by the hits


class Answers(Protocol):
    """What a lesson needs of a teacher: its View of a batch, and its shapes. How it knows is its affair."""

    shapes: Shapes
    tally: Tally

    def view(self, batch: Batch) -> View: ...


class NoTeacher:
    """Answers for methods that need no teacher."""

    shapes = Shapes(0, 0, ())

    def __init__(self) -> None:
        self.tally = Tally()

    def view(self, batch: Batch) -> View:
        return no_view(len(batch.labels), batch.images.device)


class LiveTeacher:
    """A frozen net that looks at every batch."""

    def __init__(self, net: models.Net, image_size: int, device: torch.device, autocast: bool) -> None:
        self.shapes, self.tally = net.shapes(image_size), Tally()
        self._net = net.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self._device, self._autocast = device, autocast

    def view(self, batch: Batch) -> View:
        self.tally.misses += len(batch.images)
        return self.look(batch.images)

    def look(self, images: Tensor) -> View:
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            answer: View = self._net(images)
            return answer

    @property
    def head(self) -> Head:
        """The classifier's own tensors."""
        weight, bias = (self._net.get_parameter(f"{self._net.head}.{name}") for name in ("weight", "bias"))
        return Head(weight, bias)

    def key(self, catalogue: Catalogue) -> str:
        """A hash of all that decides the answers to the views of a catalogue."""
        found = hashlib.sha256()
        told = [torch.__version__, self._device.type, self._autocast, catalogue.key]
        found.update(json.dumps([*told, type(self._net).__qualname__, self.shapes]).encode())
        for name, value in sorted(self._net.state_dict().items()):
            found.update(name.encode())
            found.update(value.cpu().numpy().tobytes())
        return found.hexdigest()[:32]


def load(net: str, weights: str, classes: int, sha256: str | None, cache: Path) -> models.Net:
    """A net with the weights of a checkpoint file or URL; no code of the checkpoint runs.

    Reads safetensors, and RepDistiller's and mdistiller's .pth. BadInput names the file and what is wrong
    with it.
    """
    path = _fetched(weights, sha256, cache)
    if not path.is_file():
        raise BadInput([f"teacher {net}: {weights}: no such file"])
    if sha256 is not None and file_sha256(path) != sha256:
        raise BadInput([f"teacher {net}: {weights}: its SHA-256 is {file_sha256(path)}, expected {sha256}"])
    made = models.make(net, classes)
    try:
        models.load_weights(made, _state(path), source=f"teacher {net}: {weights}")
    except (OSError, RuntimeError, EOFError, KeyError, safetensors.SafetensorError) as error:
        raise BadInput(
            [f"teacher {net}: {weights}: not a readable checkpoint ({_first_line(error)})"]
        ) from None
    except ValueError as error:
        raise BadInput([str(error)]) from None
    return made


def _state(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickle protocols, which load or are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RuntimeError(f"holds more than tensors, or is damaged: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def _fetched(weights: str, sha256: str | None, cache: Path) -> Path:
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
            raise BadInput([f"teacher: {weights}: could not be fetched ({_first_line(error)})"]) from None
    return target


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
