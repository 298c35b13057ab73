"""ImageNet (Russakovsky et al. 2015, arXiv:1409.0575), or any folder tree of its layout, streamed."""

from pathlib import Path
from typing import Any, Literal

from raykd.batch import Triple
from raykd.data import class_folders, shards
from raykd.data._base import DatasetInfo, RawDataset, Std
from raykd.data.encoded import ImageFiles
from raykd.data.stream import StreamedSpec
from raykd.errors import UserError
from raykd.paths import ExpandedPath

OFFICIAL = "imagenet"


class ImageNet(StreamedSpec):
    """PATH/train/CLASS/*.JPEG and PATH/val/CLASS/*.JPEG; a class's folder is its name (n01440764).

    Or shards of such a folder, as `raykd data shard` makes them: the same images, in the same places.
    Training sees random crops of `area` to all of an image, evaluation the centre of the image resized to
    256/224 of `size`.
    """

    name: Literal["imagenet"] = "imagenet"
    # relative to the data root, absolute, or a URI (of shards); may hold another set
    path: ExpandedPath = OFFICIAL
    train: str = "train"
    test: str = "val"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Std = (0.229, 0.224, 0.225)

    def published_info(self) -> DatasetInfo | None:
        """Returns ImageNet-1k's numbers where the path is the default, else None."""
        return DatasetInfo(1000, self.size, 1_281_167) if self.path == OFFICIAL else None

    def read(self, root: Path, download: bool) -> RawDataset[Any]:
        """Returns where the images of a folder, or of its shards, lie; nothing is decoded yet.

        Raises:
            UserError: The layout is another one, the classes of both parts differ, or a URI holds no shards.
        """
        base = self.path if "://" in self.path else str(root / self.path)
        if {self.train, self.test} <= set(shards.list_parts(base)):
            classes, images = shards.open_part(base, self.train)
            test_classes, test_images = shards.open_part(base, self.test)
            if classes != test_classes:
                odd = sorted(set(classes) ^ set(test_classes))[:5]
                raise UserError([f"data: {base}: classes differ between {self.train} and {self.test}: {odd}"])
            return RawDataset(classes, self.size, images, test_images, self.mean, self.std)
        if "://" in self.path:
            expected = f"{self.train}.index.parquet and {self.test}.index.parquet"
            raise UserError(
                [f"data: {base}: no shards. Expected: {expected}, as `raykd data shard` writes them"]
            )
        train, test = class_folders.list_train_and_test(Path(base), (self.train, self.test))
        return RawDataset(
            tuple(train),
            self.size,
            ImageFiles.from_classes(train),
            ImageFiles.from_classes(test),
            self.mean,
            self.std,
        )
