"""Shards: images as a few large Parquet files, on any storage that pyarrow.fs understands.

OUT/data/PART-00000-of-00005.parquet ...   image, label: Hugging Face's layout (parquet_layout.py); the images
                                           of a folder in a shuffled order
OUT/_index/PART.parquet                    an image a row, in the order of the source: label, path; and where
                                           its bytes lie: shard, offset, size

Any Parquet reader can stream the shards. Here an image is one range read at its offset, which Parquet's plain
encoding allows, so that order, views, banks and resumption are those of the source itself, bit for bit.
shard_writer.py writes them, an index last: without it, no part.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import torch
from torch import Tensor

from raykd.data import parquet_layout, pictures
from raykd.data._base import Origin
from raykd.data.class_folders import INDEX_FOLDER
from raykd.data.encoded import EncodedImages, hash_tensors, is_remote
from raykd.errors import UserError, first_line, mask_passwords
from raykd.paths import open_filesystem

LOCATION = ("shard", "offset", "size")
INDEX_FIELDS = {
    "label": pa.int64(),
    "path": pa.string(),
    "shard": pa.int32(),
    "offset": pa.int64(),
    "size": pa.int64(),
}


@dataclass(frozen=True, eq=False)
class Shards(EncodedImages):
    """Images in shards."""

    base: str  # path or URI of all parts
    part: str
    num_shards: int
    row: Tensor  # [images], int64, in the part's index
    shard: Tensor  # [images], int64
    offset: Tensor  # [images], int64
    size: Tensor  # [images], int64
    labels: Tensor  # [images], int64
    origin: Origin | None = None

    @property
    def remote(self) -> bool:  # type: ignore[override]
        """Returns whether they do not lie on a local file system."""
        return is_remote(self.base)

    def take(self, positions: Tensor) -> "Shards":
        """Returns the images at these positions, in this order."""
        taken = {name: getattr(self, name)[positions] for name in ("row", *LOCATION, "labels")}
        return replace(self, **taken, origin=Origin(self._key, len(self.labels), positions))

    @cached_property
    def _key(self) -> str:
        return hash_tensors(f"{self.base} {self.part}", self.shard, self.offset, self.size, self.labels)

    def file(self, position: int) -> str:
        """Returns an image's shard, below the base."""
        return name_shard(self.part, int(self.shard[position]), self.num_shards)

    def name(self, position: int) -> str:
        """Returns an image's shard and the file it was written from."""
        path = _read_index(self.base, self.part, ["path"])["path"][int(self.row[position])]
        return f"{open_filesystem(self.base)[1]}/{self.file(position)}: {path}"

    def read(self, position: int) -> bytes:
        """Returns an image's bytes, by one range read. Raises UnreadableImage when its shard is lost."""
        try:
            stream = open_shard(self.base, self.file(position))
            encoded: bytes = stream.read_at(int(self.size[position]), int(self.offset[position]))
        except OSError as error:
            reason = first_line(error, 120)
            raise pictures.UnreadableImage(f"not a readable image ({reason})") from None
        return encoded


def name_shard(part: str, number: int, count: int) -> str:
    """Returns where a shard lies, below the base."""
    return f"data/{part}-{number:05d}-of-{count:05d}.parquet"


@lru_cache(maxsize=64)
def open_shard(base: str, name: str) -> pa.NativeFile:
    """Returns a shard, open. It is kept for the next image; each process has its own."""
    storage, root = open_filesystem(base, "data: ")
    return storage.open_input_file(f"{root}/{name}")


def _read_index(base: str, part: str, columns: list[str]) -> pa.Table:
    storage, root = open_filesystem(base, "data: ")
    path = f"{root}/{INDEX_FOLDER}/{part}.parquet"
    with parquet_layout.refuse_unreadable(path, "not an index of shards"):
        return pq.read_table(path, columns=columns, filesystem=storage)


def list_parts(base: str) -> list[str]:
    """Returns the parts that are whole; none where no shards lie. UserError when the place cannot be read."""
    if not parquet_layout.is_utf8(base):
        return []
    storage, root = open_filesystem(base, "data: ")
    try:
        entries = storage.get_file_info(
            pyarrow.fs.FileSelector(f"{root}/{INDEX_FOLDER}", allow_not_found=True)
        )
    except NotADirectoryError:
        return []
    except OSError as error:
        raise UserError([f"data: {mask_passwords(base)}: cannot be read ({first_line(error)})"]) from None
    ending = ".parquet"
    return sorted(
        entry.base_name.removesuffix(ending) for entry in entries if entry.base_name.endswith(ending)
    )


def open_part(base: str, part: str) -> tuple[tuple[str, ...], Shards]:
    """Returns a part's classes, and its images."""
    table = _read_index(base, part, ["label", *LOCATION])
    labels, shard, offset, size = (torch.tensor(column.to_numpy()).long() for column in table.columns)
    row, num_shards = torch.arange(len(labels)), int(shard.max()) + 1
    images = Shards(base, part, num_shards, row, shard, offset, size, labels)
    return parquet_layout.get_class_names(table.schema, "label") or (), images
