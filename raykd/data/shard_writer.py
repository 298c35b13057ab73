"""Writes shards (shards.py) of a folder of images or of Hugging Face's Parquet files, and reads each back."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from raykd.data import class_folders, parquet, parquet_layout, pictures, shards
from raykd.data.encoded import EncodedImages, ImageFiles
from raykd.errors import UserError, mask_passwords
from raykd.paths import open_filesystem

SHARD_BYTES = 128 * 2**20  # of images in a file, about
ROW_GROUP_BYTES = 8 * 2**20  # of images in a row group, about: what a streaming reader holds at a time

ImageRow = dict[str, Any]  # one image: its place in the source (index), and the fields of both schemas


class Source(NamedTuple):
    """A part of what shards are written of."""

    classes: tuple[str, ...]
    images: EncodedImages
    paths: list[str]  # what the images are called in the shards
    order: np.ndarray  # positions of images, as they are written
    num_bytes: int


def open_source(source: str) -> dict[str, Source]:
    """Returns the parts of a folder, SOURCE/PART/CLASS/*.jpg, or of Hugging Face's Parquet files.

    Raises:
        UserError: There are no images, or they cannot be read.
    """
    if parts := parquet_layout.list_parts(source):
        return {part: _open_parquet_source(source, part) for part in parts}
    if "://" in source:
        raise UserError([f"data: {mask_passwords(source)}: holds no Parquet files of images"])
    return {
        part: _open_folder_source(by_class, class_folders.to_text(f"{Path(source) / part}/"))
        for part, by_class in class_folders.list_parts(Path(source)).items()
    }


def _open_parquet_source(source: str, part: str) -> Source:
    """In the order of the files: one image after another, a row group is read once."""
    classes, images = parquet.open_part(source, part)
    return Source(classes, images, images.list_paths(), np.arange(len(images.labels)), images.num_bytes)


def _open_folder_source(by_class: class_folders.FilesByClass, folder: str) -> Source:
    """In a shuffled order that is fixed for ever."""
    images = ImageFiles.from_classes(by_class)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images.labels))
    paths = [images.name(position).removeprefix(folder) for position in range(len(order))]
    sizes = (Path(file).stat().st_size for files in by_class.values() for file in files)
    return Source(tuple(by_class), images, paths, order, sum(sizes))


def write(source: str, out: str) -> Iterator[tuple[str, int, int]]:
    """Writes shards of every part of a folder or of Hugging Face's Parquet files, and reads each back.

    Yields:
        After each shard (part, images written, of so many).

    Raises:
        UserError: There are no images, or shards already, or what was read back is not what was written.
    """
    if not parquet_layout.is_utf8(out):
        raise UserError([f"data: {out}: not UTF-8, which the paths of shards must be"])
    parts = open_source(source)
    if existing := sorted(set(shards.list_parts(out)) & set(parts)):
        raise UserError([f"data: {out}: holds shards of {', '.join(existing)} already"])
    if Path(source).resolve().is_relative_to(Path(out).resolve()) and parquet_layout.list_parts(source):
        raise UserError([f"data: {out}: holds the source, {source}, whose files would be written over"])
    storage, root = open_filesystem(out, "data: ")
    for folder in ("data", class_folders.INDEX_FOLDER):
        storage.create_dir(f"{root}/{folder}", recursive=True)
    for part, images in parts.items():
        num_shards = min(max(1, round(images.num_bytes / SHARD_BYTES)), len(images.order))
        written: list[ImageRow] = []
        for number, positions in enumerate(np.array_split(images.order, num_shards)):
            rows = [_read_row(images, int(position)) for position in positions]
            buffer = _encode_parquet(rows, images.classes)
            path = f"{root}/{shards.name_shard(part, number, num_shards)}"
            with storage.open_output_stream(path) as stream:
                stream.write(buffer)
            _check_shard(storage, path, buffer, len(rows))
            written += _locate_images(rows, number, buffer.to_pybytes())
            yield part, len(written), len(images.order)
        _write_index(storage, f"{root}/{class_folders.INDEX_FOLDER}/{part}.parquet", written, images.classes)


def _read_row(source: Source, position: int) -> ImageRow:
    try:
        image = {"bytes": source.images.read(position), "path": source.paths[position]}
    except pictures.UnreadableImage as error:
        raise UserError([f"data: {source.images.name(position)}: {error}"]) from None
    return {"index": position, "label": int(source.images.labels[position]), "image": image}


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


def _write_index(
    storage: pyarrow.fs.FileSystem, path: str, rows: list[ImageRow], classes: tuple[str, ...]
) -> None:
    """Writes a part's index. Takes it back, with a UserError, when what is read is not what was written."""
    schema = pa.schema(shards.INDEX_FIELDS, metadata=parquet_layout.make_metadata(classes))
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: int(row["index"])), schema=schema)
    pq.write_table(table, path, filesystem=storage)
    try:
        whole = pq.read_table(path, filesystem=storage).equals(table, check_metadata=True)
    except (OSError, ValueError):
        whole = False
    if not whole:
        storage.delete_file(path)
        raise UserError([f"data: {path}: read back, its {len(rows)} images are not what was written"])


def _chunk(rows: Iterable[ImageRow], size: int) -> Iterator[list[ImageRow]]:
    """Yields pieces of about so many bytes of images."""
    chunk: list[ImageRow] = []
    missing = size
    for row in rows:
        chunk.append(row)
        missing -= len(row["image"]["bytes"])
        if missing <= 0:
            yield chunk
            chunk, missing = [], size
    if chunk:
        yield chunk


def _encode_parquet(rows: list[ImageRow], classes: tuple[str, ...]) -> pa.Buffer:
    metadata = parquet_layout.make_metadata(classes, image={"_type": "Image"})
    schema = pa.schema({"image": parquet_layout.IMAGE_TYPE, "label": pa.int64()}, metadata=metadata)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="none", use_dictionary=False) as writer:
        for group in _chunk(rows, ROW_GROUP_BYTES):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    return sink.getvalue()


def _locate_images(rows: list[ImageRow], shard: int, content: bytes) -> list[ImageRow]:
    """Returns the index's rows: where images lie. Plain encoding is length, bytes, length, bytes."""
    located, offset = [], 0
    for row in rows:
        image = row["image"]["bytes"]
        offset = content.index(struct.pack("<I", len(image)) + image, offset) + 4
        entry = {"index": row["index"], "label": row["label"], "path": row["image"]["path"]}
        located.append(entry | {"shard": shard, "offset": offset, "size": len(image)})
    return located
