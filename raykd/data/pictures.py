"""Images decoded: the pixels that torchvision's ImageFolder sees, with every mode above 8 bits scaled to 8.

As there, transparency is left out, an animation is its first frame, and an EXIF orientation is not applied.
"""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from raykd.errors import first_line


class UnreadableImage(Exception):
    """An image is missing or damaged. Says why."""


def decode(encoded: bytes) -> Tensor:
    """Returns an image's pixels, [3, height, width], uint8.

    Raises:
        UnreadableImage: These are not the bytes of an image, or not all of them, or its values have no range
            that could be scaled.
    """
    from torchvision.transforms.v2 import functional as T  # here: it takes seconds, and few data sets need it

    with _open(encoded) as image:
        pixels: Tensor = T.pil_to_tensor(_convert_to_rgb(image))
    return pixels


def read_sides(encoded: bytes) -> tuple[int, int]:
    """Returns an image's height and width, by its header. UnreadableImage when it has none."""
    with _open(encoded) as image:
        return image.height, image.width


@contextlib.contextmanager
def _open(encoded: bytes) -> Iterator[ImageFile.ImageFile]:
    """An image for a `with` block, in which UnreadableImage says what is wrong with it."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(encoded)) as image:
            yield image  # warnings are about odd metadata, which is not read
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        reason = first_line(error, 120)
        raise UnreadableImage(f"not a readable image ({reason})") from None


def _convert_to_rgb(image: ImageFile.ImageFile) -> Image.Image:
    """Returns an image of any mode as 8-bit RGB. ValueError when its values have no range known.

    Pillow's own conversion clips what is above 255. Integers here count as 16 bits (TIFF's 12 as 12), and the
    high 8 are taken, as Pillow does with 16-bit colours; floats count as 0 to 1, to 255 if any is above 1.
    """
    if image.mode[0] not in "IF":
        return image.convert("RGB")
    bits = 12 if "I;12" in str(image.tile) else 16  # before the pixels are loaded
    values = np.asarray(image)
    low, high = values.min(), values.max()
    white = 2**bits - 1 if image.mode != "F" else 1 if high <= 1 else 255
    if not 0 <= low <= high <= white:
        raise ValueError(f"values from {low} to {high}, expected 0 to {white}")
    grey = values >> bits - 8 if image.mode != "F" else np.rint(values * (255 / white))
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def decode_jpegs(encoded: list[bytes | None], device: torch.device) -> list[Tensor | None]:
    """Returns JPEGs decoded on a device (by nvJPEG on a GPU), each as `decode` does; None where it cannot."""
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
    """Returns whether a JPEG is whole: decoders on GPUs may fill up what is missing."""
    return data.rstrip(b"\0")[-2:] == b"\xff\xd9"
