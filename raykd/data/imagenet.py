"""ImageNet (Russakovsky et al. 2015, arXiv:1409.0575), or any folder tree of its layout, streamed."""

from pathlib import Path
from typing import Literal

from raykd.data import pictures
from raykd.data._base import Figures, Raw, Triple
from raykd.data.stream import Files, Streamed

OFFICIAL = "imagenet"


class ImageNet(Streamed):
    """PATH/train/CLASS/*.JPEG and PATH/val/CLASS/*.JPEG; a class's folder is its name (n01440764).

    Training sees random crops of `area` to all of an image, evaluation the centre of the image resized to
    256/224 of `size`.
    """

    name: Literal["imagenet"] = "imagenet"
    path: str = OFFICIAL  # relative to the data root, or absolute; under another path, another set may lie
    train: str = "train"
    test: str = "val"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    def known(self) -> Figures | None:
        return Figures(1000, self.size, 1_281_167) if self.path == OFFICIAL else None

    def read(self, root: Path, download: bool) -> Raw[Files]:
        base = root / Path(self.path).expanduser()
        train, test = pictures.listed(base, (self.train, self.test))
        return Raw(tuple(train), self.size, Files.of(train), Files.of(test), self.mean, self.std)
