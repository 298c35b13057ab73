"""ImageNet (Russakovsky et al. 2015, arXiv:1409.0575), or any folder tree of its layout, streamed."""

from pathlib import Path
from typing import Any, Literal

from raykd.batch import Triple
from raykd.data._base import DatasetInfo, RawDataset, Std
from raykd.data.image_parts import open_parts
from raykd.data.stream import StreamedSpec
from raykd.paths import ExpandedPath

OFFICIAL = "imagenet"


class ImageNet(StreamedSpec):
    """PATH/train/CLASS/*.JPEG and PATH/val/CLASS/*.JPEG; a class's folder is its name (n01440764).

    Or Hugging Face's Parquet files, or shards as `raykd data shard` makes them of either: the same images, in
    the same places.
    Training sees random crops of `area` to all of an image, evaluation the centre of the image resized to
    256/224 of `size`.
    """

    name: Literal["imagenet"] = "imagenet"
    # relative to the data root, absolute, or a URI (of Parquet files); may hold another set
    path: ExpandedPath = OFFICIAL
    train: str = "train"
    test: str = "val"
    label: str | None = None  # the column of labels in Parquet files; None: label, fine_label or coarse_label
    mean: Triple = (0.485, 0.456, 0.406)
    std: Std = (0.229, 0.224, 0.225)

    def published_info(self) -> DatasetInfo | None:
        """Returns ImageNet-1k's numbers where the path is the default, else None."""
        return DatasetInfo(1000, self.size, 1_281_167) if self.path == OFFICIAL else None

    def read(self, root: Path, download: bool) -> RawDataset[Any]:
        """Returns where the images lie; nothing is decoded yet. UserError as for `open_parts`."""
        base = self.path if "://" in self.path else str(root / self.path)
        parts = open_parts(base, self.train, self.test, self.label)
        return RawDataset(parts.classes, self.size, parts.train, parts.test, self.mean, self.std)
