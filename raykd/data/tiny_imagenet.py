"""Tiny-ImageNet (Stanford CS231n): 100,000 + 10,000 images of 64 x 64 in 200 classes of ImageNet."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from raykd.data._base import DatasetInfo, RawDataset
from raykd.data.class_folders import FilesByClass, list_by_class, list_folders, list_images
from raykd.data.encoded import ImageFiles
from raykd.data.folder import ImageFolder
from raykd.data.image_parts import ImageParts
from raykd.data.in_memory import InMemorySpec, Pixels
from raykd.errors import UserError, first_line, shorten
from raykd.paths import ExpandedPath

MEAN, STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)  # of the training images
FOLDER = "tiny-imagenet-200"
OFFICIAL = ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de")
LAYOUT = (
    "train/CLASS/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt (FILE CLASS X Y W H a line), "
    "or val sorted into class folders"
)


class TinyImageNet(InMemorySpec):
    """Its official layout, or `val` sorted into class folders, val/CLASS/images/*.JPEG or val/CLASS/*.JPEG.

    The official test images have no labels: `val` is what is tested on, as everywhere.
    """

    name: Literal["tiny_imagenet"] = "tiny_imagenet"
    path: ExpandedPath = FOLDER  # relative to the data root, or absolute
    size: Annotated[int, Field(ge=8)] = 64

    def published_info(self) -> DatasetInfo | None:
        """Returns the official numbers."""
        return DatasetInfo(200, self.size, 100_000)

    def read(self, root: Path, download: bool) -> RawDataset[Pixels]:
        """Returns the images of both parts, decoded; fetches them if they are not there and `download`."""
        base = root / self.path
        if missing := [base / part for part in ("train", "val") if not (base / part).is_dir()]:
            if not download:
                raise UserError(
                    [f"data: {missing[0]}: not there. Expected: {base}/ with {LAYOUT}; --download fetches it"]
                )
            _download(root)
        train = list_by_class(base / "train")
        folder = ImageFolder(**self.model_dump(exclude={"name"}), mean=MEAN, std=STD)
        val = _list_val(base / "val", tuple(train))
        parts = ImageParts(tuple(train), ImageFiles.from_classes(train), ImageFiles.from_classes(val))
        return folder.decode_parts(str(base), parts)


def _download(root: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive  # here: it takes seconds

    url, md5 = OFFICIAL
    try:
        download_and_extract_archive(url, str(root), md5=md5)
    except (OSError, RuntimeError) as error:
        raise UserError([f"data: Tiny-ImageNet could not be fetched into {root} ({error})"]) from None


def _list_val(val: Path, classes: tuple[str, ...]) -> FilesByClass:
    """Returns the images of each class, in the order of `classes`: by class folders, else by annotations."""
    folders = dict(list_folders(val))
    if set(classes) & set(folders):
        by_class = {name: list_images(folders[name]) if name in folders else [] for name in classes}
    else:
        by_class = {name: [] for name in classes}
        images = folders.get("images", val)
        for file, name in _read_annotations(val / "val_annotations.txt", by_class):
            by_class[name].append(str(images / file))
    if empty := [name for name, files in by_class.items() if not files]:
        raise UserError([f"data: {val}: no images for {empty[:5]}. Expected: {LAYOUT}"])
    return by_class


def _read_annotations(annotations: Path, classes: Container[str]) -> Iterator[tuple[str, str]]:
    """Yields (file, class) of each line, FILE CLASS X Y W H between tabs, blanks or commas."""
    try:
        content = annotations.read_bytes()
        text = content.decode("utf-16" if content[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig")
    except FileNotFoundError:
        raise UserError([f"data: {annotations}: no such file. Expected: {LAYOUT}"]) from None
    except (OSError, UnicodeError) as error:
        raise UserError([f"data: {annotations}: {first_line(error)}. Expected: {LAYOUT}"]) from None
    for place, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        file, name, *_ = [*re.split(r"[\s,;]+", line.strip()), ""]
        if name not in classes:
            problem = f"line {place}: '{shorten(line, 60)}': no such class among train's"
            raise UserError([f"data: {annotations}: {problem}. Expected: {LAYOUT}"])
        yield file, name
