"""Tiny-ImageNet (Stanford CS231n): 100,000 + 10,000 images of 64 x 64 in 200 classes of ImageNet, in its own
layout; as a folder a class, it is read by `folder`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from raykd.data._base import DatasetInfo, RawDataset
from raykd.data.folder import ImageFolder
from raykd.data.in_memory import InMemorySpec, Pixels
from raykd.data.pictures import FilesByClass, list_by_class
from raykd.errors import UserError
from raykd.paths import ExpandedPath

MEAN, STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)  # of the training images
FOLDER = "tiny-imagenet-200"
OFFICIAL = ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de")
LAYOUT = "train/CLASS/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt"


class TinyImageNet(InMemorySpec):
    """The official test images have no labels: `val` is what is tested on, as everywhere."""

    name: Literal["tiny_imagenet"] = "tiny_imagenet"
    path: ExpandedPath = FOLDER  # relative to the data root, or absolute
    size: Annotated[int, Field(ge=8)] = 64

    def published_info(self) -> DatasetInfo | None:
        return DatasetInfo(200, self.size, 100_000)

    def read(self, root: Path, download: bool) -> RawDataset[Pixels]:
        base = root / self.path
        annotations = base / "val" / "val_annotations.txt"
        for needed in (base / "train", annotations):
            if not needed.exists() and not download:
                raise UserError(
                    [f"data: {needed}: not there. Expected: {base}/ with {LAYOUT}; --download fetches it"]
                )
            if not needed.exists():
                _download(root)
        train = list_by_class(base / "train")
        folder = ImageFolder(**self.model_dump(exclude={"name"}), mean=MEAN, std=STD)
        return folder.decode_files(base, train, _read_annotations(annotations, tuple(train)))


def _download(root: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive  # here: it takes seconds

    url, md5 = OFFICIAL
    try:
        download_and_extract_archive(url, str(root), md5=md5)
    except (OSError, RuntimeError) as error:
        raise UserError([f"data: Tiny-ImageNet could not be fetched into {root} ({error})"]) from None


def _read_annotations(annotations: Path, classes: tuple[str, ...]) -> FilesByClass:
    """The images of each class, in the order of `classes`. A line is FILE CLASS and a box of four numbers."""
    by_class: FilesByClass = {name: [] for name in classes}
    for place, line in enumerate(annotations.read_text().splitlines(), start=1):
        file, name, *_ = [*line.split(), "", ""]
        if name not in by_class:
            raise UserError(
                [f"data: {annotations}: line {place}: '{line[:60]}': no such class among train's"]
            )
        by_class[name].append(str(annotations.parent / "images" / file))
    if empty := [name for name, files in by_class.items() if not files]:
        raise UserError([f"data: {annotations}: no images for {empty[:5]}"])
    return by_class
