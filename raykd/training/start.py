"""What a net begins with: weights of a file, a URL or its own library, found here and checked; or none.

`place` is where the weights lie: a path, a URL, a URI of a storage, or `pretrained`. What is fetched is kept
under weights/ of the folder of caches, by its SHA-256, for all runs of this machine.
"""

import hashlib
import tempfile
import urllib.error
import urllib.parse
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from raykd import models
from raykd.errors import MAX_LINE, UserError, first_line
from raykd.models.checkpoint import check_finite, read_weights
from raykd.models.pretrained import download_pretrained
from raykd.paths import get_cache_folder
from raykd.store.folder import Folder, split_uri
from raykd.study.nets import NetSpec
from raykd.study.recipe import Recipe
from raykd.study.starts import PRETRAINED


def make_started(
    spec: NetSpec, classes: int, cache: Path | None = None, download: bool = False
) -> models.Net:
    """Returns a net with its weights; the rest as for `read_start`."""
    net = models.make(spec.net, classes, spec.options)
    weights = read_start(spec, net, cache, download)
    models.load_weights(net, weights, spec.head == "new")
    return net


def read_start(
    spec: NetSpec, net: models.Net, cache: Path | None = None, download: bool = False
) -> dict[str, Tensor]:
    """Returns a net's weights, less those of a classifier that is drawn anew; no code of the file runs.

    Args:
        spec: Of the net; it has weights.
        net: A net of its kind, for as many classes as the data have.
        cache: The folder of caches; None: this node's own.
        download: Whether `pretrained` weights that are not here may be fetched.

    Raises:
        UserError: One line that names the weights and what is wrong, or what the file holds instead.
    """
    try:
        path = fetch_weights(spec, cache, download)
        if not path.is_file():
            raise ValueError("is a folder" if path.is_dir() else "no such file")
        if spec.sha256 is not None and (actual := compute_sha256(path)) != spec.sha256:
            raise ValueError(f"its SHA-256 is {actual}, expected {spec.sha256}")
        is_new = spec.head == "new"
        weights = read_weights(path, net.state_dict(), net.head if is_new else "")
        models.check_weights(net, weights, is_new)
        check_finite(weights)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError([f"{_name(spec)}: {first_line(error, MAX_LINE)}"]) from None
    return weights


def fetch_weights(spec: NetSpec, cache: Path | None, download: bool) -> Path:
    """Returns the file of a net's weights on this machine; whether it is there is not asked of a path.

    Raises:
        ValueError: It could not be fetched; says why.
    """
    assert spec.weights is not None
    url = urllib.parse.urlparse(spec.weights)
    if spec.weights != PRETRAINED and url.scheme in ("", "file"):
        return Path(spec.weights.removeprefix("file://")).expanduser()
    folder = (cache or get_cache_folder()) / "weights"
    if spec.weights == PRETRAINED:
        return _fetch_pretrained(spec, folder / spec.net.replace("/", "--"), download)
    if url.scheme in ("http", "https"):
        name = spec.sha256 or hashlib.sha256(spec.weights.encode()).hexdigest()
        return _fetch_url(spec.weights, folder / name / Path(url.path).name, spec.sha256)
    storage, name = split_uri(spec.weights)
    return Folder(storage).fetch(name, folder)


def _fetch_url(url: str, target: Path, sha256: str | None) -> Path:
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256, progress=False)
        except urllib.error.HTTPError as error:
            with error:  # it holds the connection
                raise ValueError(f"could not be fetched ({first_line(error)})") from None
        except (OSError, RuntimeError) as error:
            raise ValueError(f"could not be fetched ({first_line(error)})") from None
    return target


def _fetch_pretrained(spec: NetSpec, folder: Path, download: bool) -> Path:
    """The file of the library's weights: of the hash that the spec says, else the one that came last."""
    files = sorted(folder.glob(f"{spec.sha256 or '*'}.safetensors"), key=lambda file: file.stat().st_mtime)
    if files:
        return files[-1]
    if not download:
        raise ValueError(f"not in {folder}, and nothing may be fetched without --download")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous() for name, value in download_pretrained(spec.net).items()}
        content = safetensors.torch.save(weights)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        return Path(file.name).replace(folder / f"{hashlib.sha256(content).hexdigest()}.safetensors")
    except Exception as error:  # the libraries' and their clients' own
        raise ValueError(f"could not be fetched ({first_line(error)})") from None


def compute_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content: 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pin_weights(recipe: Recipe, download: bool) -> Recipe:
    """Returns the recipe with the SHA-256 of all weights that it names, so that they are these for good.

    `pretrained` weights are fetched; a file that is not seen from here, or a URI, stays without one.

    Raises:
        UserError: `pretrained` weights could not be fetched.
    """
    plain = recipe.to_dict()
    teachers = [plain["teacher"]] if recipe.teacher else plain["teachers"]
    nets = (recipe.student, *recipe.peers, *recipe.list_teachers())
    for spec, settings in zip(nets, [plain["student"], *plain["peers"], *teachers], strict=True):
        if spec.sha256 is None:
            settings["sha256"] = _find_sha256(spec, download)
    return recipe.with_settings(plain)


def _find_sha256(spec: NetSpec, download: bool) -> str | None:
    if spec.weights is None or "://" in spec.weights:
        return None
    try:
        path = fetch_weights(spec, None, download)
    except ValueError as error:
        raise UserError([f"{_name(spec)}: {error}"]) from None
    return compute_sha256(path) if path.is_file() else None


def check_starts(recipe: Recipe, classes: int, alone: bool, download: bool) -> None:
    """Checks the weights of all nets, as far as they are seen from here; those of URLs and URIs are not.

    Args:
        recipe: Of the nets.
        classes: Of the data.
        alone: Whether this machine trains alone. Else a file that is not here is the nodes' own.
        download: As for `make_started`.

    Raises:
        UserError: A file is missing, cannot be read, or holds other weights.
    """
    for spec in (recipe.student, *recipe.peers, *recipe.list_teachers()):
        weights = spec.weights or "://"
        if "://" not in weights and (alone or weights == PRETRAINED or Path(weights).is_file()):
            make_started(spec, classes, download=download)


def _name(spec: NetSpec) -> str:
    """In messages."""
    return f"{spec.role} {spec.net}: {spec.weights}"
