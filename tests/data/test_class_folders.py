"""Folders of images as other people have them: what is an image, of which class, and what is passed over."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raykd import data
from raykd.data import class_folders, inventory
from raykd.errors import UserError

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def write_images(*files: Path | str) -> None:
    """Small real images; the ending says the format."""
    for shade, file in enumerate(files):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (shade, 2 * shade, 99)).save(file)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Two parts of two classes, an image each."""
    write_images(*(tmp_path / part / name / "1.png" for part in ("train", "val") for name in ("cat", "dog")))
    return tmp_path


def load(base: Path, name: str = "folder") -> data.Dataset[Any]:
    spec = {"folder": data.ImageFolder, "imagenet": data.ImageNet}[name]
    return data.load(spec(path=str(base), size=8, holdout=0), base, False)


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_what_systems_leave_behind_is_passed_over(base: Path, name: str) -> None:
    for folder in ("__MACOSX/cat", ".ipynb_checkpoints", "cat/.ipynb_checkpoints", "cat/@eaDir/1.png"):
        for part in ("train", "val"):
            write_images(base / part / folder / "2.png")
    (base / "__MACOSX/train/cat").mkdir(parents=True)
    for file in (".DS_Store", "train/.DS_Store", "train/cat/.DS_Store", "val/dog/Thumbs.db", "Thumbs.db"):
        (base / file).write_bytes(b"\0")
    for file in ("train/cat/._1.png", "val/._cat", "train/._1.jpg", "__MACOSX/train/cat/._1.png"):
        (base / file).write_bytes(b"\0\5\x16\7 AppleDouble")
    dataset = load(base, name)
    assert dataset.classes == ("cat", "dog") and len(dataset.train.labels) == len(dataset.test.labels) == 2
    rows = inventory.list_parts(str(base))
    row = {"form": "files", "classes": 2, "images": 2, "passed_over": 0}
    assert rows == [{"part": part} | row for part in ("train", "val")]


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_class_names_of_two_unicode_forms_are_one_class(base: Path, name: str) -> None:
    write_images(base / "train" / NFC / "1.png", base / "val" / NFD / "1.png", base / "val" / NFC / "2.png")
    dataset = load(base, name)
    assert dataset.classes == (NFC, "cat", "dog") and dataset.test.labels.tolist() == [0, 0, 1, 2]


def test_the_order_of_files_does_not_depend_on_their_unicode_form(tmp_path: Path) -> None:
    """'e' and an accent sorts before 'f', the letter é after it: positions, and so splits, would differ."""
    for form in (NFC, NFD):
        write_images(tmp_path / form / "cat" / f"{form}.png", tmp_path / form / "cat" / "caff.png")
    orders = [class_folders.list_by_class(tmp_path / form)["cat"] for form in (NFC, NFD)]
    assert [[Path(file).name.isascii() for file in order] for order in orders] == [[True, False]] * 2


def test_all_endings_are_images(base: Path) -> None:
    endings = ("bmp", "gif", "JPEG", "jpg", "pgm", "png", "ppm", "tif", "tiff", "TIF", "webp")
    write_images(*(base / "train/cat/deeper" / f"image.{ending}" for ending in endings))
    dataset = load(base)
    assert dataset.train.labels.tolist() == [0] * (1 + len(endings)) + [1]
    assert [int(image[..., 2].min()) for image in dataset.train.pixels] == pytest.approx([99] * 13, abs=3)


def test_other_files_are_counted(base: Path, verb: Callable[..., Any]) -> None:
    write_images(base / "train/loose.png", base / "flat/1.png", base / "flat/2.png")
    (base / "train/cat/boxes.txt").write_text("no image")
    (base / "val/cat/1.heic").write_text("no image that is read")
    counts = [(row["part"], row["images"], row["passed_over"]) for row in inventory.list_parts(str(base))]
    assert counts == [("flat", 0, 2), ("train", 2, 2), ("val", 2, 1)]
    assert "passed_over" in verb("data", "show", str(base)).stdout
    lines = verb("data", "shard", str(base), "out").stdout.splitlines()
    assert lines == [
        *(f"{base}/{part}: {n} files passed over: no image, or in no class folder" for part, _, n in counts),
        "out/train: 2 of 2 images",
        "out/val: 2 of 2 images",
    ]


def test_shards_beside_their_source_are_no_part(base: Path, verb: Callable[..., Any]) -> None:
    lines = ["{}/train: 2 of 2 images", "{}/val: 2 of 2 images"]
    for out in (base / "out", base / "again", base):  # the last one: between its parts
        done = verb("data", "shard", str(base), str(out))
        assert done.stdout.splitlines() == [line.format(out) for line in lines], done.stderr
        rows = inventory.list_parts(str(base))
        assert [(row["part"], row["images"]) for row in rows] == [("train", 2), ("val", 2)]


def test_other_layouts_are_refused_with_the_one_expected(base: Path) -> None:
    write_images(base / "flat/train/cat/1.png", base / "flat/val/1.png")
    with pytest.raises(
        UserError, match=r"val: its images lie in no class folder\. Expected: .*val/CLASS/\*\.jpg"
    ):
        load(base / "flat")
    write_images(base / "own/train/cat/1.png", base / "own/val/images/1.png")
    with pytest.raises(
        UserError, match=r"\['cat', 'images'\]\. Expected: .*\{train,val\}/CLASS/\*\.jpg, the same"
    ):
        load(base / "own", "imagenet")
    (base / "train/cat/1.png").rename(base / "train/cat/1.heic")
    with pytest.raises(UserError, match=r"train: no images for \['cat'\] \(endings: \.jpg, "):
        load(base)


def test_names_that_are_not_utf8_are_escaped(base: Path, verb: Callable[..., Any]) -> None:
    odd = os.fsdecode(b"caf\xe9")
    for part in ("train", "val"):
        write_images(base / part / odd / f"{odd}.png")
    dataset = load(base, "imagenet")
    assert dataset.classes == ("caf\\xe9", "cat", "dog")
    assert (
        dataset.train.name(0).endswith("train/caf\\xe9/caf\\xe9.png") and dataset.train.read(0)[1:4] == b"PNG"
    )
    assert (
        verb("data", "show", str(base)).returncode == verb("data", "shard", str(base), "out").returncode == 0
    )
    sharded = load(base.parent / base.name / "out", "imagenet")
    assert sharded.classes == dataset.classes and sharded.train.read(0) == dataset.train.read(0)
    assert sharded.train.name(0).endswith("parquet: caf\\xe9/caf\\xe9.png")
    (base / "train" / odd / f"{odd}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"caf\\xe9\.png: not a readable image"):
        load(base)


def test_a_place_that_cannot_be_read_is_one_line(base: Path, verb: Callable[..., Any]) -> None:
    (base / "file").write_text("no folder")
    write_images(base / "own/train/cat/1.png")
    (base / "shards/_index").mkdir(parents=True)
    (base / "shards/_index/damaged.parquet").write_text("no Parquet file")
    odd = os.fsdecode(b"caf\xe9")
    for words, line in (
        (("show", "x" * 300), "cannot be read"),
        (("show", "file"), "file: holds no images. Expected: file/PART/CLASS/*.jpg"),
        (("show", odd), r"caf\udce9: holds no images"),
        (("shard", "own", odd), r"caf\udce9: not UTF-8"),
        (("shard", "x" * 300, "out"), "cannot be read"),
        (("show", "shards"), "damaged.parquet: not an index of shards"),
    ):
        completed = verb("data", *words)
        assert completed.returncode == 2 and completed.stderr.count("\n") == 1, completed
        assert completed.stderr.startswith("data: ") and line in completed.stderr
