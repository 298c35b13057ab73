"""Where teachers come from, and who answers for them: a live forward pass, or nobody."""

import hashlib
import pickle
import urllib.parse
import warnings
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch

from raykd import models
from raykd.mistakes import BadInput
from raykd.step import Batch, Shapes, View, no_view


class Answers(Protocol):
    """What a lesson needs of a teacher: its View of a batch, and its shapes. How it knows is its affair."""

    shapes: Shapes

    def view(self, batch: Batch) -> View: ...


class NoTeacher:
    """Answers for methods that need no teacher."""

    shapes = Shapes(0, 0, ())

    def view(self, batch: Batch) -> View:
        return no_view(len(batch.labels), batch.images.device)


class LiveTeacher:
    """A frozen net that looks at every batch."""

    def __init__(self, net: models.Net, image_size: int, device: torch.device, autocast: bool) -> None:
        self.shapes = net.shapes(image_size)
        self._net = net.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self._autocast = autocast

    def view(self, batch: Batch) -> View:
        with (
            torch.no_grad(),
            torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self._autocast),
        ):
            answer: View = self._net(batch.images)
            return answer


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
