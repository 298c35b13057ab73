"""Image files: listed by class, and decoded."""

import contextlib
import io
import os
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from raykd.errors import UserError, first_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

FilesByClass = dict[str, list[str]]  # class -> files, sorted


class UnreadableImage(Exception):
    """An image is missing or damaged. Says why."""


def list_train_and_test(base: Path, parts: tuple[str, str]) -> tuple[FilesByClass, FilesByClass]:
    """The images of two parts, BASE/PART/CLASS/*.jpg. UserError when the layout is another one."""
    for part in parts:
        if not (base / part).is_dir():
            layout = f"{base}/{{{','.join(parts)}}}/CLASS/*.jpg"
            raise UserError([f"data: {base / part}: no such folder. Expected: {layout}"])
    train, test = (list_by_class(base / part) for part in parts)
    if odd := sorted(set(train) ^ set(test)):
        raise UserError([f"data: {base}: class folders differ between {' and '.join(parts)}: {odd[:5]}"])
    return train, test


def list_parts(base: Path) -> dict[str, FilesByClass]:
    """The images of every part, BASE/PART/CLASS/*.jpg. UserError when there is none."""
    folders = sorted(folder for folder in base.iterdir() if folder.is_dir()) if base.is_dir() else []
    parts = {
        part.name: list_by_class(part) for part in folders if any(one.is_dir() for one in part.iterdir())
    }
    if not parts:
        raise UserError([f"data: {base}: holds no images. Expected: {base}/PART/CLASS/*.jpg"])
    return parts


def list_by_class(part: Path) -> FilesByClass:
    """PART/CLASS/*.jpg, at any depth below CLASS. UserError when a class has no images."""
    by_class = {
        folder.name: sorted(_find_images(str(folder))) for folder in sorted(part.iterdir()) if folder.is_dir()
    }
    if empty := [name for name, files in by_class.items() if not files] or (
        [part.name] if not by_class else []
    ):
        raise UserError([f"data: {part}: no images for {empty[:5]} (endings: {', '.join(SUFFIXES)})"])
    return by_class


def _find_images(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:  # it knows a folder from a file without a look at each
        for entry in entries:
            if entry.name.lower().endswith(SUFFIXES):
                yield entry.path
            elif entry.is_dir():
                yield from _find_images(entry.path)


def decode(encoded: bytes) -> Tensor:
    """[3, height, width], uint8. UnreadableImage when these are not the bytes of an image, or not all."""
    from torchvision.transforms.v2 import functional as T  # here: it takes seconds, and few data sets need it

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(encoded)) as image:
            warnings.simplefilter("ignore")  # about odd metadata, which is not read
            pixels: Tensor = T.pil_to_tensor(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        reason = first_line(error, 120)
        raise UnreadableImage(f"not a readable image ({reason})") from None
    return pixels


def decode_jpegs(encoded: list[bytes | None], device: torch.device) -> list[Tensor | None]:
    """JPEGs decoded on a device (nvJPEG on a GPU), [3, height, width], uint8; None where it cannot."""
    decoded: list[Tensor | None] = [None] * len(encoded)
    whole = [
        k for k, data in enumerate(encoded) if data and data[:2] == b"\xff\xd8" and _has_end_marker(data)
    ]
    try:
        for k, pixels in zip(
            whole, _decode_whole_jpegs([encoded[k] or b"" for k in whole], device), strict=True
        ):
            decoded[k] = pixels
    except RuntimeError:  # some one of them: each alone
        for k in whole:
            with contextlib.suppress(RuntimeError):
                decoded[k] = _decode_whole_jpegs([encoded[k] or b""], device)[0]
    return decoded


def _decode_whole_jpegs(encoded: list[bytes], device: torch.device) -> list[Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg  # here: it takes seconds

    tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in encoded]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # in favour of TorchCodec, which few machines have
        pixels: list[Tensor] = decode_jpeg(tensors, mode=ImageReadMode.RGB, device=device) if tensors else []
    return pixels


def _has_end_marker(data: bytes) -> bool:
    """Whether a JPEG is whole: decoders on GPUs may fill up what is missing."""
    return data.rstrip(b"\0")[-2:] == b"\xff\xd9"
