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
from raykd.data.encoded import Encoded
from raykd.errors import BadInput, masked, without_password

SHARD = 128 * 2**20  # bytes of images in a file, about
GROUP = 8 * 2**20  # bytes of images in a row group, about: what a streaming reader holds at a time
CLASS = pa.dictionary(pa.int32(), pa.string())
IMAGE = pa.schema(
    {"index": pa.int64(), "label": pa.int32(), "class": CLASS, "file": pa.string(), "jpeg": pa.binary()}
)
PLACE = pa.schema(
    {
        "label": pa.int32(), "class": CLASS, "file": pa.string(),
        "shard": pa.int32(), "offset": pa.int64(), "size": pa.int64(),
    }
)  # fmt: skip

Row = dict[str, Any]  # one image, by the names above


@dataclass(frozen=True, eq=False)
class Shards(Encoded):
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
        return not isinstance(place(self.base)[0], pyarrow.fs.LocalFileSystem)

    def take(self, positions: Tensor) -> "Shards":
        tensors = (self.row, self.shard, self.offset, self.size, self.labels)
        return Shards(self.base, self.part, *(tensor[positions] for tensor in tensors))

    def name(self, position: int) -> str:
        file = _index(self.base, self.part, ["file"])["file"][int(self.row[position])]
        return f"{place(self.base)[1]}/{self.part}/{self.shard[position]:05d}.parquet: {file}"

    def data(self, position: int) -> bytes:
        try:
            stream = _stream(self.base, f"{self.part}/{self.shard[position]:05d}.parquet")
            data: bytes = stream.read_at(int(self.size[position]), int(self.offset[position]))
        except OSError as error:
            reason = (str(error).splitlines() or [""])[0][:120]
            raise pictures.Unreadable(f"not a readable image ({reason})") from None
        return data


def place(base: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of a path or URI, and the path there."""
    if "://" not in base:
        return pyarrow.fs.LocalFileSystem(), base
    try:
        storage, root = pyarrow.fs.FileSystem.from_uri(without_password(base))
    except (ValueError, OSError) as error:
        raise BadInput([f"data: {masked(base)}: {str(error).splitlines()[0]}"]) from None
    return storage, root.rstrip("/")


@lru_cache(maxsize=64)
def _stream(base: str, name: str) -> pa.NativeFile:
    """Open shards are kept for the next image; each process has its own."""
    storage, root = place(base)
    return storage.open_input_file(f"{root}/{name}")


def _index(base: str, part: str, columns: list[str] | None = None) -> pa.Table:
    storage, root = place(base)
    return pq.read_table(f"{root}/{part}.index.parquet", columns=columns, filesystem=storage)


def parts(base: str) -> list[str]:
    """The parts that are whole."""
    storage, root = place(base)
    found = storage.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True))
    ending = ".index.parquet"
    return sorted(one.base_name.removesuffix(ending) for one in found if one.base_name.endswith(ending))


def opened(base: str, part: str) -> tuple[tuple[str, ...], Shards]:
    """A part's classes, and its images."""
    table = _index(base, part, [name for name in PLACE.names if name != "file"]).combine_chunks()
    columns = {name: torch.tensor(table[name].to_numpy()).long() for name in PLACE.names[3:]}
    labels = torch.tensor(table["label"].to_numpy()).long()
    classes = dict(zip(labels.tolist(), table["class"].to_pylist(), strict=True))
    made = Shards(base, part, torch.arange(len(labels)), **columns, labels=labels)
    return tuple(classes[label] for label in range(len(classes))), made


def write(source: Path, out: str) -> Iterator[tuple[str, int, int]]:
    """Shards of every part of a folder, SOURCE/PART/CLASS/*.jpg: (part, images written, of so many)."""
    found = pictures.parts(source)
    if done := sorted(set(parts(out)) & set(found)):
        raise BadInput([f"data: {out}: holds shards of {', '.join(done)} already"])
    storage, root = place(out)
    for part, by_class in found.items():
        storage.create_dir(f"{root}/{part}", recursive=True)
        written: list[Row] = []
        rows = _rows(by_class, source / part)
        for number, shard in enumerate(_shards(rows, source / part)):
            buffer = _parquet(shard)
            with storage.open_output_stream(f"{root}/{part}/{number:05d}.parquet") as stream:
                stream.write(buffer)
            written += _placed(shard, number, buffer.to_pybytes())
            yield part, len(written), len(rows)
        written.sort(key=lambda row: int(row["index"]))
        table = pa.Table.from_pylist(written, schema=PLACE)
        pq.write_table(table, f"{root}/{part}.index.parquet", filesystem=storage)


def _rows(by_class: pictures.ByClass, base: Path) -> list[Row]:
    named = [
        (label, name, str(Path(file).relative_to(base)))
        for label, (name, files) in enumerate(by_class.items())
        for file in files
    ]
    return [
        {"index": index, "label": label, "class": name, "file": file}
        for index, (label, name, file) in enumerate(named)
    ]


def _shards(rows: list[Row], base: Path) -> Iterator[list[Row]]:
    """The rows with their images, in a shuffled order that is fixed for ever, a shard at a time."""
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(len(rows))
    filled = ({**rows[index], "jpeg": (base / rows[index]["file"]).read_bytes()} for index in shuffled)
    return _cut(filled, SHARD)


def _cut(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Pieces of about so many bytes of images."""
    piece: list[Row] = []
    missing = size
    for row in rows:
        piece.append(row)
        missing -= len(row["jpeg"])
        if missing <= 0:
            yield piece
            piece, missing = [], size
    if piece:
        yield piece


def _parquet(rows: list[Row]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, IMAGE, compression="none", use_dictionary=["class"]) as writer:
        for group in _cut(rows, GROUP):
            writer.write_table(pa.Table.from_pylist(group, schema=IMAGE))
    return sink.getvalue()


def _placed(rows: list[Row], shard: int, parquet: bytes) -> list[Row]:
    """The rows without their images, but with where these lie: plain encoding is length, bytes, and so on."""
    placed, offset = [], 0
    for row in rows:
        data = row["jpeg"]
        offset = parquet.index(struct.pack("<I", len(data)) + data, offset) + 4
        kept = {name: row[name] for name in ("index", "label", "class", "file")}
        placed.append(kept | {"shard": shard, "offset": offset, "size": len(data)})
    return placed
