"""Shards: a folder of images as a few large Parquet files, on any storage that pyarrow.fs understands.

OUT/PART/00000.parquet ...   index, label, class, file, jpeg: one row an image, in a shuffled order
OUT/PART.index.parquet       in the order of index, the images' positions in the folder: label, class, file;
                             and where the bytes lie: shard, offset, size. Written last: without it, no PART

Any Parquet reader can stream the shards. Here an image is one range read at its offset, which Parquet's plain
encoding allows, so that order, views, banks and resumption are those of the folder itself, bit for bit.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import torch
from torch import Tensor

from raykd.data import class_folders, pictures
from raykd.data._base import Origin
from raykd.data.encoded import EncodedImages
from raykd.errors import UserError, first_line, mask_passwords
from raykd.paths import open_filesystem

SHARD_BYTES = 128 * 2**20  # of images in a file, about
ROW_GROUP_BYTES = 8 * 2**20  # of images in a row group, about: what a streaming reader holds at a time
CLASS_TYPE = pa.dictionary(pa.int32(), pa.string())
IMAGE_SCHEMA = pa.schema(
    {"index": pa.int64(), "label": pa.int32(), "class": CLASS_TYPE, "file": pa.string(), "jpeg": pa.binary()}
)
INDEX_SCHEMA = pa.schema(
    {
        "label": pa.int32(), "class": CLASS_TYPE, "file": pa.string(),
        "shard": pa.int32(), "offset": pa.int64(), "size": pa.int64(),
    }
)  # fmt: skip

ImageRow = dict[str, Any]  # one image, by the names above; "path": where it is read from


@dataclass(frozen=True, eq=False)
class Shards(EncodedImages):
    """Images in shards."""

    base: str  # path or URI of all parts
    part: str
    row: Tensor  # [images], int64, in the part's index
    shard: Tensor  # [images], int64
    offset: Tensor  # [images], int64
    size: Tensor  # [images], int64
    labels: Tensor  # [images], int64
    origin: Origin | None = None

    @property
    def remote(self) -> bool:  # type: ignore[override]
        """Returns whether they do not lie on a local file system."""
        return not isinstance(open_filesystem(self.base, "data: ")[0], pyarrow.fs.LocalFileSystem)

    def take(self, positions: Tensor) -> "Shards":
        """Returns the images at these positions, in this order."""
        names = ("row", "shard", "offset", "size", "labels")
        taken = {name: getattr(self, name)[positions] for name in names}
        return replace(self, **taken, origin=Origin(self._key, len(self.labels), positions))

    @cached_property
    def _key(self) -> str:
        digest = hashlib.sha256(f"{self.base} {self.part}".encode())
        for tensor in (self.shard, self.offset, self.size, self.labels):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def name(self, position: int) -> str:
        """Returns an image's shard and the file it was written from."""
        file = _read_index(self.base, self.part, ["file"])["file"][int(self.row[position])]
        return f"{open_filesystem(self.base)[1]}/{self.part}/{self.shard[position]:05d}.parquet: {file}"

    def read(self, position: int) -> bytes:
        """Returns an image's bytes, by one range read. Raises UnreadableImage when its shard is lost."""
        try:
            stream = open_shard(self.base, f"{self.part}/{self.shard[position]:05d}.parquet")
            encoded: bytes = stream.read_at(int(self.size[position]), int(self.offset[position]))
        except OSError as error:
            reason = first_line(error, 120)
            raise pictures.UnreadableImage(f"not a readable image ({reason})") from None
        return encoded


@lru_cache(maxsize=64)
def open_shard(base: str, name: str) -> pa.NativeFile:
    """Returns a shard, open. It is kept for the next image; each process has its own."""
    storage, root = open_filesystem(base, "data: ")
    return storage.open_input_file(f"{root}/{name}")


def _is_utf8(base: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in base)


def _read_index(base: str, part: str, columns: list[str]) -> pa.Table:
    storage, root = open_filesystem(base, "data: ")
    path = f"{root}/{part}.index.parquet"
    try:
        return pq.read_table(path, columns=columns, filesystem=storage)
    except (OSError, ValueError) as error:
        raise UserError([f"data: {path}: not an index of shards ({first_line(error)})"]) from None


def list_parts(base: str) -> list[str]:
    """Returns the parts that are whole; none where no shards lie. UserError when the place cannot be read."""
    if not _is_utf8(base):
        return []
    storage, root = open_filesystem(base, "data: ")
    try:
        entries = storage.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True))
    except NotADirectoryError:
        return []
    except OSError as error:
        raise UserError([f"data: {mask_passwords(base)}: cannot be read ({first_line(error)})"]) from None
    ending = ".index.parquet"
    return sorted(
        entry.base_name.removesuffix(ending) for entry in entries if entry.base_name.endswith(ending)
    )


def open_part(base: str, part: str) -> tuple[tuple[str, ...], Shards]:
    """Returns a part's classes, and its images."""
    table = _read_index(base, part, [name for name in INDEX_SCHEMA.names if name != "file"]).combine_chunks()
    columns = {name: torch.tensor(table[name].to_numpy()).long() for name in INDEX_SCHEMA.names[3:]}
    labels = torch.tensor(table["label"].to_numpy()).long()
    classes = dict(zip(labels.tolist(), table["class"].to_pylist(), strict=True))
    images = Shards(base, part, torch.arange(len(labels)), **columns, labels=labels, origin=None)
    return tuple(classes[label] for label in range(len(classes))), images


def write(source: Path, out: str) -> Iterator[tuple[str, int, int]]:
    """Writes shards of every part of a folder, SOURCE/PART/CLASS/*.jpg, and reads each back.

    Yields:
        After each shard (part, images written, of so many).

    Raises:
        UserError: There are no images, or shards already, or what was read back is not what was written.
    """
    if not _is_utf8(out):
        raise UserError([f"data: {out}: not UTF-8, which the paths of shards must be"])
    files = class_folders.list_parts(source)
    if existing := sorted(set(list_parts(out)) & set(files)):
        raise UserError([f"data: {out}: holds shards of {', '.join(existing)} already"])
    storage, root = open_filesystem(out, "data: ")
    for part, by_class in files.items():
        storage.create_dir(f"{root}/{part}", recursive=True)
        written: list[ImageRow] = []
        rows = _list_rows(by_class, len(source.parts) + 1)
        for number, shard in enumerate(_cut_shards(rows)):
            buffer = _encode_parquet(shard)
            path = f"{root}/{part}/{number:05d}.parquet"
            with storage.open_output_stream(path) as stream:
                stream.write(buffer)
            _check_shard(storage, path, buffer, len(shard))
            written += _locate_images(shard, number, buffer.to_pybytes())
            yield part, len(written), len(rows)
        _write_index(storage, f"{root}/{part}.index.parquet", written)


def _check_shard(storage: pyarrow.fs.FileSystem, path: str, written: pa.Buffer, num_images: int) -> None:
    """Raises UserError unless a shard's file has the written bytes' checksum, and so many images in it."""
    try:
        with storage.open_input_file(path) as stream:
            content = stream.read_buffer()
        whole = zlib.crc32(content) == zlib.crc32(written)
        whole = whole and pq.read_metadata(pa.BufferReader(content)).num_rows == num_images
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise UserError([f"data: {path}: read back, its {num_images} images are not what was written"])


def _write_index(storage: pyarrow.fs.FileSystem, path: str, rows: list[ImageRow]) -> None:
    """Writes a part's index. Takes it back, with a UserError, when what is read is not what was written."""
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: int(row["index"])), schema=INDEX_SCHEMA)
    pq.write_table(table, path, filesystem=storage)
    try:
        whole = pq.read_table(path, filesystem=storage).equals(table)
    except (OSError, ValueError):
        whole = False
    if not whole:
        storage.delete_file(path)
        raise UserError([f"data: {path}: read back, its {len(rows)} images are not what was written"])


def _list_rows(by_class: class_folders.FilesByClass, base_parts: int) -> list[ImageRow]:
    """Returns the rows of all files, without their images; `file` is `path` without its first parts."""
    files = [(label, name, path) for label, (name, paths) in enumerate(by_class.items()) for path in paths]
    return [
        {
            "index": index, "label": label, "class": name, "path": path,
            "file": class_folders.to_text("/".join(Path(path).parts[base_parts:])),
        }
        for index, (label, name, path) in enumerate(files)
    ]  # fmt: skip


def _cut_shards(rows: list[ImageRow]) -> Iterator[list[ImageRow]]:
    """Yields the rows with their images, in a shuffled order that is fixed for ever, a shard at a time."""
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(len(rows))
    complete = ({**rows[index], "jpeg": Path(rows[index]["path"]).read_bytes()} for index in shuffled)
    return _chunk(complete, SHARD_BYTES)


def _chunk(rows: Iterable[ImageRow], size: int) -> Iterator[list[ImageRow]]:
    """Yields pieces of about so many bytes of images."""
    chunk: list[ImageRow] = []
    missing = size
    for row in rows:
        chunk.append(row)
        missing -= len(row["jpeg"])
        if missing <= 0:
            yield chunk
            chunk, missing = [], size
    if chunk:
        yield chunk


def _encode_parquet(rows: list[ImageRow]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, IMAGE_SCHEMA, compression="none", use_dictionary=["class"]) as writer:
        for group in _chunk(rows, ROW_GROUP_BYTES):
            writer.write_table(pa.Table.from_pylist(group, schema=IMAGE_SCHEMA))
    return sink.getvalue()


def _locate_images(rows: list[ImageRow], shard: int, parquet: bytes) -> list[ImageRow]:
    """Returns the rows with where their images lie: plain encoding is length, bytes, length, bytes."""
    located, offset = [], 0
    for row in rows:
        jpeg = row["jpeg"]
        offset = parquet.index(struct.pack("<I", len(jpeg)) + jpeg, offset) + 4
        entry = {name: row[name] for name in ("index", "label", "class", "file")}
        located.append(entry | {"shard": shard, "offset": offset, "size": len(jpeg)})
    return located
