"""Decoded images: every mode and format as torchvision's ImageFolder sees it; deep ones scaled to 8 bits."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import pil_loader
from torchvision.transforms.v2 import functional as T

from raykd.data import pictures

RGB = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (6, 5, 3), dtype=np.uint8)
GREY = np.arange(0, 65536, 2185, dtype=np.uint16).reshape(6, 5)  # to 65,550 and less


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def make_tiff_of_12_bits() -> bytes:
    """Two grey pixels, 4095 and 16, by hand: Pillow writes none of 12 bits."""
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    header = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    return header.ljust(122, b"\0") + b"\xff\xf0\x10"


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bits_of_grey_are_scaled(form: str) -> None:
    pixels = pictures.decode(encode(Image.fromarray(GREY), form))
    assert torch.equal(pixels, torch.from_numpy(GREY // 256).byte().expand(3, -1, -1))
    assert pixels.float().std() > 50  # as it was: white, from 256 on


@pytest.mark.parametrize("white", [1, 255])
def test_floats_count_to_1_or_to_255(white: int) -> None:
    shades = np.linspace(0, white, 30, dtype=np.float32).reshape(6, 5)
    pixels = pictures.decode(encode(Image.fromarray(shades), "TIFF"))
    assert torch.equal(pixels, torch.from_numpy(np.rint(shades * (255 / white))).byte().expand(3, -1, -1))


def test_integers_of_12_and_of_32_bits() -> None:
    assert pictures.decode(make_tiff_of_12_bits())[0].tolist() == [[255, 1]]
    wide = encode(Image.fromarray(GREY.astype(np.int32)), "TIFF")
    assert torch.equal(pictures.decode(wide)[0], torch.from_numpy(GREY // 256).byte())


@pytest.mark.parametrize("values", [[[0, 70_000]], [[-1, 5]], [[0.5, 300.0]], [[0.5, float("nan")]]])
def test_values_without_a_range_are_refused(values: list[list[float]]) -> None:
    kind = np.int32 if isinstance(values[0][0], int) else np.float32
    with pytest.raises(
        pictures.UnreadableImage, match=r"values from \S+ to \S+, expected 0 to (1|255|65535)\)"
    ):
        pictures.decode(encode(Image.fromarray(np.array(values, kind)), "TIFF"))


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "PNG"), ("L", "JPEG"), ("LA", "PNG"), ("P", "PNG"), ("P", "BMP"), ("P", "GIF"), ("RGB", "PPM"),
        ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("RGB", "BMP"), ("RGBA", "PNG"), ("RGBA", "WEBP"),
        ("RGBA", "TIFF"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Palette images")  # of torchvision's reading
def test_other_modes_are_as_torchvision_reads_them(mode: str, form: str, tmp_path: Path) -> None:
    """Transparency is left out, of palettes too; CMYK, also as Adobe inverts it, is converted."""
    image = Image.fromarray(np.dstack([RGB, RGB[..., 0]]), "RGBA").convert(mode)
    options = {"transparency": bytes(range(256))} if (mode, form) == ("P", "PNG") else {}
    (tmp_path / "image").write_bytes(encode(image, form, **options))
    expected = T.pil_to_tensor(pil_loader(str(tmp_path / "image")))
    assert torch.equal(pictures.decode((tmp_path / "image").read_bytes()), expected)


def test_an_animation_is_its_first_frame_and_exif_does_not_turn() -> None:
    first, second = (Image.fromarray(np.full((4, 4), shade, np.uint8)) for shade in (10, 200))
    animated = encode(first, "GIF", save_all=True, append_images=[second])
    assert pictures.decode(animated).unique().tolist() == [10]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    wide = encode(Image.fromarray(RGB[:3]), "JPEG", exif=exif)
    assert pictures.decode(wide).shape == (3, 3, 5)
    (on_device,) = pictures.decode_jpegs([wide], torch.device("cpu"))
    assert on_device is not None and on_device.shape == (3, 3, 5)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "BMP", "PPM", "JPEG", "WEBP"])
def test_half_a_file_is_no_image(form: str) -> None:
    image = Image.fromarray(GREY) if form in ("PNG", "TIFF", "PPM") else Image.fromarray(RGB)
    whole = encode(image, form)
    with pytest.raises(pictures.UnreadableImage, match="not a readable image"):
        pictures.decode(whole[: len(whole) // 2])
