"""Images in Parquet files of Hugging Face's layout (parquet_layout.py), on any storage of pyarrow.fs.

An image costs its row group, which a process keeps for the others of it (CACHE_BYTES). Shards (shards.py) are
such files with an index beside them, by which each image is read alone.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from raykd.data import pictures
from raykd.data._base import Origin
from raykd.data.encoded import EncodedImages, hash_tensors, is_remote
from raykd.data.parquet_layout import (
    check_labels,
    choose_columns,
    get_class_names,
    list_parts,
    refuse_unreadable,
)
from raykd.errors import UserError, first_line
from raykd.paths import open_filesystem

CACHE_BYTES = 2**29  # of row groups that a process keeps


@dataclass(frozen=True, eq=False)
class ParquetImages(EncodedImages):
    """Images in Parquet files."""

    base: str  # path or URI of all parts
    column: str  # of images
    groups: tuple[tuple[str, int], ...]  # file below the base, row group in it
    group: Tensor  # [images], int64, in `groups`
    row: Tensor  # [images], int64, in the row group
    labels: Tensor  # [images], int64
    num_bytes: int  # of all row groups
    origin: Origin | None = None

    @property
    def remote(self) -> bool:  # type: ignore[override]
        """Returns whether they do not lie on a local file system."""
        return is_remote(self.base)

    def take(self, positions: Tensor) -> "ParquetImages":
        """Returns the images at these positions, in this order."""
        taken = {name: getattr(self, name)[positions] for name in ("group", "row", "labels")}
        return replace(self, **taken, origin=Origin(self._key, len(self.labels), positions))

    @cached_property
    def _key(self) -> str:
        return hash_tensors(
            f"{self.base} {self.column} {self.groups} {self.num_bytes}", self.group, self.row, self.labels
        )

    def name(self, position: int) -> str:
        """Returns an image's file and its place in it."""
        file, number = self.groups[int(self.group[position])]
        return f"{open_filesystem(self.base)[1]}/{file}: row {self.row[position]} of row group {number}"

    def read(self, position: int) -> bytes:
        """Returns an image's bytes. Raises UnreadableImage when its file is lost, or does not hold them."""
        encoded = self._read_image(position)["bytes"].as_py()
        if not isinstance(encoded, bytes):
            raise pictures.UnreadableImage("not a readable image (no bytes in this row)")
        return encoded

    def list_paths(self) -> list[str]:
        """Returns what each image of a whole part was called; its position where that is not kept."""
        storage, root = open_filesystem(self.base, "data: ")
        paths: list[str] = []
        for file in dict.fromkeys(file for file, _ in self.groups):
            path = f"{root}/{file}"
            with (
                refuse_unreadable(path, "not a readable Parquet file"),
                pq.ParquetFile(path, filesystem=storage) as parquet,
            ):
                images = parquet.read([f"{self.column}.path"])[self.column]
            names = pc.struct_field(images, "path").to_pylist()
            paths += [name or f"{len(paths) + row:08d}" for row, name in enumerate(names)]
        return paths

    def _read_image(self, position: int) -> Any:
        file, number = self.groups[int(self.group[position])]
        try:
            return row_groups.read(self.base, file, number, self.column)[int(self.row[position])]
        except (OSError, ValueError) as error:
            reason = first_line(error, 120)
            raise pictures.UnreadableImage(f"not a readable image ({reason})") from None


class RowGroupCache:
    """The row groups of images that a process read last, up to a number of bytes, for all its threads."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[str, str, int, str], pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, base: str, file: str, number: int, column: str) -> pa.ChunkedArray:
        """Returns the images of a row group. OSError or ValueError when it cannot be read."""
        key = (base, file, number, column)
        with self._lock:
            if key not in self._groups:
                storage, root = open_filesystem(base, "data: ")
                with pq.ParquetFile(f"{root}/{file}", filesystem=storage) as parquet:
                    table = parquet.read_row_group(number, columns=[column])
                self._groups[key] = table[column]
                while len(self._groups) > 1 and self._count_bytes() > CACHE_BYTES:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(key)
            return self._groups[key]

    def _count_bytes(self) -> int:
        return sum(group.nbytes for group in self._groups.values())


row_groups = RowGroupCache()


class _FileContent(NamedTuple):
    """What a file holds, but for its images."""

    image_column: str
    classes: tuple[str, ...] | None  # by name, where its metadata tell
    labels: np.ndarray
    group_sizes: list[int]
    num_bytes: int  # of images


def _read_content(storage: Any, path: str, label: str | None) -> _FileContent:
    with (
        refuse_unreadable(path, "not a readable Parquet file"),
        pq.ParquetFile(path, filesystem=storage) as parquet,
    ):
        image, label = choose_columns(parquet.schema_arrow, label, path)
        labels = check_labels(parquet.read([label])[label], path)
        groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
        chunks = [group.column(k) for group in groups for k in range(group.num_columns)]
        num_bytes = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == f"{image}.bytes")
        classes = get_class_names(parquet.schema_arrow, label)
        return _FileContent(image, classes, labels, [group.num_rows for group in groups], num_bytes)


def open_part(base: str, part: str, label: str | None = None) -> tuple[tuple[str, ...], ParquetImages]:
    """Returns a part's classes, and its images.

    Args:
        base: Path or URI.
        part: One of `list_parts`.
        label: The column of labels; None: label, fine_label or coarse_label, the first that is there.

    Raises:
        UserError: A file cannot be read, has other columns, or labels that are no classes.
    """
    storage, root = open_filesystem(base, "data: ")
    contents = {file: _read_content(storage, f"{root}/{file}", label) for file in list_parts(base)[part]}
    if len({content[:2] for content in contents.values()}) > 1:
        raise UserError([f"data: {root}: the files of {part} differ in their columns or classes"])
    image_column, names = next(iter(contents.values()))[:2]
    labels = np.concatenate([content.labels for content in contents.values()])
    num_labels = int(labels.max(initial=-1)) + 1
    classes = tuple(str(number) for number in range(num_labels)) if names is None else names
    if not len(labels):
        raise UserError([f"data: {root}: {part}: no images"])
    if num_labels > len(classes):
        raise UserError([f"data: {root}: {part}: a label is {num_labels - 1}, of {len(classes)} classes"])
    sizes = torch.tensor([size for content in contents.values() for size in content.group_sizes])
    group = torch.arange(len(sizes)).repeat_interleave(sizes)
    images = ParquetImages(
        base=base,
        column=image_column,
        groups=tuple(
            (file, k) for file, content in contents.items() for k in range(len(content.group_sizes))
        ),
        group=group,
        row=torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[group],
        labels=torch.from_numpy(labels),
        num_bytes=sum(content.num_bytes for content in contents.values()),
    )
    return classes, images
