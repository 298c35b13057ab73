"""Tiny-ImageNet (Stanford CS231n): 100,000 + 10,000 images of 64 x 64 in 200 classes of ImageNet, in its own
layout; as a folder a class, it is read by `folder`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from raykd.data._base import Figures, Raw
from raykd.data.folder import Folder
from raykd.data.pictures import ByClass, by_class
from raykd.data.views import InMemory, Pixels
from raykd.errors import BadInput

MEAN, STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)  # of the training images
FOLDER = "tiny-imagenet-200"
OFFICIAL = ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de")
LAYOUT = "train/CLASS/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt"


class TinyImageNet(InMemory):
    """The official test images have no labels: `val` is what is tested on, as everywhere."""

    name: Literal["tiny_imagenet"] = "tiny_imagenet"
    path: str = FOLDER  # relative to the data root, or absolute
    size: Annotated[int, Field(ge=8)] = 64

    def known(self) -> Figures | None:
        return Figures(200, self.size, 100_000)

    def read(self, root: Path, download: bool) -> Raw[Pixels]:
        base = root / Path(self.path).expanduser()
        annotations = base / "val" / "val_annotations.txt"
        for needed in (base / "train", annotations):
            if not needed.exists() and not download:
                raise BadInput(
                    [f"data: {needed}: not there. Expected: {base}/ with {LAYOUT}; --download fetches it"]
                )
            if not needed.exists():
                _fetch(root)
        train = by_class(base / "train")
        same = Folder(**self.model_dump(exclude={"name"}), mean=MEAN, std=STD)
        return same.decoded(base, train, _annotated(annotations, tuple(train)))


def _fetch(root: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive  # here: it takes seconds

    url, md5 = OFFICIAL
    try:
        download_and_extract_archive(url, str(root), md5=md5)
    except (OSError, RuntimeError) as error:
        raise BadInput([f"data: Tiny-ImageNet could not be fetched into {root} ({error})"]) from None


def _annotated(annotations: Path, classes: tuple[str, ...]) -> ByClass:
    """The images of each class, in the order of `classes`. A line is FILE CLASS and a box of four numbers."""
    found: ByClass = {name: [] for name in classes}
    for place, line in enumerate(annotations.read_text().splitlines(), start=1):
        file, name, *_ = [*line.split(), "", ""]
        if name not in found:
            raise BadInput([f"data: {annotations}: line {place}: '{line[:60]}': no such class among train's"])
        found[name].append(str(annotations.parent / "images" / file))
    if empty := [name for name, files in found.items() if not files]:
        raise BadInput([f"data: {annotations}: no images for {empty[:5]}"])
    return found
