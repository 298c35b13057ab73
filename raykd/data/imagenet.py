"""ImageNet (Russakovsky et al. 2015, arXiv:1409.0575), or any folder tree of its layout, streamed."""

from pathlib import Path
from typing import Any, Literal

from raykd.data import pictures, shards
from raykd.data._base import Figures, Raw, Std, Triple
from raykd.data.encoded import Files
from raykd.data.stream import Streamed
from raykd.errors import BadInput

OFFICIAL = "imagenet"


class ImageNet(Streamed):
    """PATH/train/CLASS/*.JPEG and PATH/val/CLASS/*.JPEG; a class's folder is its name (n01440764). Or shards
    of such a folder, as `raykd data shard` makes them: the same images, in the same places.

    Training sees random crops of `area` to all of an image, evaluation the centre of the image resized to
    256/224 of `size`.
    """

    name: Literal["imagenet"] = "imagenet"
    path: str = OFFICIAL  # relative to the data root, absolute, or a URI (of shards); may hold another set
    train: str = "train"
    test: str = "val"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Std = (0.229, 0.224, 0.225)

    def known(self) -> Figures | None:
        return Figures(1000, self.size, 1_281_167) if self.path == OFFICIAL else None

    def read(self, root: Path, download: bool) -> Raw[Any]:
        base = self.path if "://" in self.path else str(root / Path(self.path).expanduser())
        if {self.train, self.test} <= set(shards.parts(base)):
            classes, images = shards.opened(base, self.train)
            others, tests = shards.opened(base, self.test)
            if classes != others:
                odd = sorted(set(classes) ^ set(others))[:5]
                raise BadInput([f"data: {base}: classes differ between {self.train} and {self.test}: {odd}"])
            return Raw(classes, self.size, images, tests, self.mean, self.std)
        if "://" in self.path:
            lack = f"{self.train}.index.parquet and {self.test}.index.parquet"
            raise BadInput([f"data: {base}: no shards. Expected: {lack}, as `raykd data shard` writes them"])
        train, test = pictures.listed(Path(base), (self.train, self.test))
        return Raw(tuple(train), self.size, Files.of(train), Files.of(test), self.mean, self.std)
