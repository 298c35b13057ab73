"""Shards: a folder of images as a few large Parquet files, on any storage that pyarrow.fs understands.

OUT/PART/00000.parquet ...   index, label, class, file, jpeg: one row an image, in a shuffled order
OUT/PART.index.parquet       in the order of index, the images' positions in the folder: label, class, file;
                             and where the bytes lie: shard, offset, size. Written last: without it, no PART

Any Parquet reader can stream the shards. Here an image is one range read at its offset, which Parquet's plain
encoding allows, so that order, views, banks and resumption are those of the folder itself, bit for bit.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import torch
from torch import Tensor

from raykd.data import pictures
from raykd.data.encoded import EncodedImages
from raykd.errors import UserError, first_line, mask_passwords, reject_password

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

ImageRow = dict[str, Any]  # one image, by the names above


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

    @property
    def remote(self) -> bool:  # type: ignore[override]
        return not isinstance(open_storage(self.base)[0], pyarrow.fs.LocalFileSystem)

    def take(self, positions: Tensor) -> "Shards":
        tensors = (self.row, self.shard, self.offset, self.size, self.labels)
        return Shards(self.base, self.part, *(tensor[positions] for tensor in tensors))

    def name(self, position: int) -> str:
        file = _read_index(self.base, self.part, ["file"])["file"][int(self.row[position])]
        return f"{open_storage(self.base)[1]}/{self.part}/{self.shard[position]:05d}.parquet: {file}"

    def read(self, position: int) -> bytes:
        try:
            stream = open_shard(self.base, f"{self.part}/{self.shard[position]:05d}.parquet")
            encoded: bytes = stream.read_at(int(self.size[position]), int(self.offset[position]))
        except OSError as error:
            reason = first_line(error, 120)
            raise pictures.UnreadableImage(f"not a readable image ({reason})") from None
        return encoded


def open_storage(base: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a path or URI, and the path there."""
    if "://" not in base:
        return pyarrow.fs.LocalFileSystem(), base
    try:
        storage, root = pyarrow.fs.FileSystem.from_uri(reject_password(base))
    except (ValueError, OSError) as error:
        raise UserError([f"data: {mask_passwords(base)}: {first_line(error)}"]) from None
    return storage, root.rstrip("/")


@lru_cache(maxsize=64)
def open_shard(base: str, name: str) -> pa.NativeFile:
    """Open shards are kept for the next image; each process has its own."""
    storage, root = open_storage(base)
    return storage.open_input_file(f"{root}/{name}")


def _read_index(base: str, part: str, columns: list[str] | None = None) -> pa.Table:
    storage, root = open_storage(base)
    return pq.read_table(f"{root}/{part}.index.parquet", columns=columns, filesystem=storage)


def list_parts(base: str) -> list[str]:
    """The parts that are whole."""
    storage, root = open_storage(base)
    entries = storage.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True))
    ending = ".index.parquet"
    return sorted(
        entry.base_name.removesuffix(ending) for entry in entries if entry.base_name.endswith(ending)
    )


def open_part(base: str, part: str) -> tuple[tuple[str, ...], Shards]:
    """A part's classes, and its images."""
    table = _read_index(base, part, [name for name in INDEX_SCHEMA.names if name != "file"]).combine_chunks()
    columns = {name: torch.tensor(table[name].to_numpy()).long() for name in INDEX_SCHEMA.names[3:]}
    labels = torch.tensor(table["label"].to_numpy()).long()
    classes = dict(zip(labels.tolist(), table["class"].to_pylist(), strict=True))
    images = Shards(base, part, torch.arange(len(labels)), **columns, labels=labels)
    return tuple(classes[label] for label in range(len(classes))), images


def write(source: Path, out: str) -> Iterator[tuple[str, int, int]]:
    """Shards of every part of a folder, SOURCE/PART/CLASS/*.jpg: (part, images written, of so many)."""
    files = pictures.list_parts(source)
    if existing := sorted(set(list_parts(out)) & set(files)):
        raise UserError([f"data: {out}: holds shards of {', '.join(existing)} already"])
    storage, root = open_storage(out)
    for part, by_class in files.items():
        storage.create_dir(f"{root}/{part}", recursive=True)
        written: list[ImageRow] = []
        rows = _list_rows(by_class, source / part)
        for number, shard in enumerate(_cut_shards(rows, source / part)):
            buffer = _encode_parquet(shard)
            with storage.open_output_stream(f"{root}/{part}/{number:05d}.parquet") as stream:
                stream.write(buffer)
            written += _locate_images(shard, number, buffer.to_pybytes())
            yield part, len(written), len(rows)
        written.sort(key=lambda row: int(row["index"]))
        table = pa.Table.from_pylist(written, schema=INDEX_SCHEMA)
        pq.write_table(table, f"{root}/{part}.index.parquet", filesystem=storage)


def _list_rows(by_class: pictures.FilesByClass, base: Path) -> list[ImageRow]:
    files = [
        (label, name, str(Path(file).relative_to(base)))
        for label, (name, files) in enumerate(by_class.items())
        for file in files
    ]
    return [
        {"index": index, "label": label, "class": name, "file": file}
        for index, (label, name, file) in enumerate(files)
    ]


def _cut_shards(rows: list[ImageRow], base: Path) -> Iterator[list[ImageRow]]:
    """The rows with their images, in a shuffled order that is fixed for ever, a shard at a time."""
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(len(rows))
    complete = ({**rows[index], "jpeg": (base / rows[index]["file"]).read_bytes()} for index in shuffled)
    return _chunk(complete, SHARD_BYTES)


def _chunk(rows: Iterable[ImageRow], size: int) -> Iterator[list[ImageRow]]:
    """Pieces of about so many bytes of images."""
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
    """The rows without their images, but with where these lie: plain encoding is length, bytes, and so on."""
    located, offset = [], 0
    for row in rows:
        jpeg = row["jpeg"]
        offset = parquet.index(struct.pack("<I", len(jpeg)) + jpeg, offset) + 4
        entry = {name: row[name] for name in ("index", "label", "class", "file")}
        located.append(entry | {"shard": shard, "offset": offset, "size": len(jpeg)})
    return located
