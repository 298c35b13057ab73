"""Tiny-ImageNet's layouts: the official one, val sorted into class folders, and annotations of any editor."""

from pathlib import Path

import pytest
from PIL import Image

from raykd import data
from raykd.errors import UserError

CLASSES = ("n01443537", "n01629819")
LINES = [f"val_{k}.JPEG\t{CLASSES[k % 2]}\t0\t32\t44\t62" for k in range(4)]


def write_image(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(path)


def make_tree(root: Path, val: str = "val/images/{file}") -> Path:
    """Two images a class to train on, four to test on; the test images are of the shades 0, 50, 100, 150."""
    base = root / "tiny-imagenet-200"
    for name in CLASSES:
        for k in range(2):
            write_image(base / "train" / name / "images" / f"{name}_{k}.JPEG", 9)
        (base / "train" / name / f"{name}_boxes.txt").write_text("boxes")
    for k in range(4):
        write_image(base / val.format(file=f"val_{k}.JPEG", name=CLASSES[k % 2]), 50 * k)
    return base / "val/val_annotations.txt"


def load_test(root: Path) -> list[tuple[int, int]]:
    """(shade, label) of the test images."""
    test = data.load(data.TinyImageNet(size=8, holdout=0), root, False).test
    return sorted(
        (int(image[0, 0, 0]), int(label)) for image, label in zip(test.pixels, test.labels, strict=True)
    )


EXPECTED = [(0, 0), (50, 1), (100, 0), (150, 1)]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(LINES).encode(),
        "\n".join([*LINES, "", "  ", ""]).encode("utf-8-sig"),
        "\r\n".join(LINES).encode(),
        "\n".join(LINES).replace("\t", "  ").encode(),
        "\n".join(LINES).replace("\t", ", ").encode(),
        "\r\n".join(LINES).encode("utf-16"),
    ],
    ids=["official", "mark and blank lines", "CRLF", "blanks", "commas", "UTF-16"],
)
@pytest.mark.parametrize("val", ["val/images/{file}", "val/{file}"])
def test_annotations_of_any_editor_are_read(content: bytes, val: str, tmp_path: Path) -> None:
    make_tree(tmp_path, val).write_bytes(content)
    assert load_test(tmp_path) == EXPECTED


@pytest.mark.parametrize("val", ["val/{name}/images/{file}", "val/{name}/{file}"])
@pytest.mark.parametrize("leftover", [True, False])
def test_val_sorted_into_class_folders_is_read(val: str, leftover: bool, tmp_path: Path) -> None:
    """With the official files beside it, as scripts leave them, or without."""
    annotations = make_tree(tmp_path, val)
    if leftover:
        annotations.write_text("\n".join(LINES))
        (annotations.parent / "images").mkdir()
    assert load_test(tmp_path) == EXPECTED


def test_what_cannot_be_read_is_refused_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"200/train: not there\. Expected: .*val_annotations\.txt.*--download"
    ):
        load_test(tmp_path)
    annotations = make_tree(tmp_path)
    for content, problem in (
        (None, "no such file"),
        (b"\xff\xfe\xfd", "codec can't decode"),
        (b"n01443537 val_0.JPEG", "line 1: 'n01443537 val_0.JPEG': no such class among train's"),
        ("\n".join(LINES[::2]).encode(), r"no images for \['n01629819'\]"),
    ):
        if content is not None:
            annotations.write_bytes(content)
        with pytest.raises(UserError, match=rf"{problem}.* Expected: train/CLASS/images/\*\.JPEG, ") as error:
            load_test(tmp_path)
        assert len(error.value.lines) == 1
