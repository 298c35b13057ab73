"""Teachers' outputs in files on a node's own disk, memory-mapped, shared by all processes there.

A row is one view's outputs, as bytes, and a CRC of them. A row whose CRC is wrong (empty, torn by two
writers or a power cut, damaged) is a row that is not there, so rows are read and written without a lock. Rows
are read through the map and written by pwrite, which fails where a full disk would kill a writer of the map.

Layout: a page of header, then the rows. The file is sparse: it takes the space of the rows that were written.
"""

import fcntl
import json
import os
import shutil
import struct
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

MAGIC = "raykd cache of teacher outputs, 2"
PAGE_BYTES = 4096
SECONDS_OFFSET = PAGE_BYTES - 8  # of seconds_per_view in the header; not part of what is checked
CRC_BYTES = 4


class CacheFile:
    """`rows` rows of `width` bytes. Made by `open_cache_file`; the file stays locked against removal."""

    def __init__(self, file: IO[bytes], rows: int, width: int, max_rows: int) -> None:
        self.width = width
        self._file, self.max_rows = file, max_rows  # rows from `max_rows` on are not written
        weakref.finalize(self, file.close)
        self._cells = np.memmap(file, np.uint8, "r", PAGE_BYTES, (rows, count_row_bytes(width)))

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Returns the bytes [n, width] of rows [n], and which of them are valid [n]."""
        cells = self._cells[rows]
        values, crcs = cells[:, :-CRC_BYTES], cells[:, -CRC_BYTES:].copy().view(np.uint32)[:, 0]
        values = np.ascontiguousarray(values)
        is_valid = crcs == np.fromiter((zlib.crc32(row) for row in values), np.uint32)
        return values[:, : self.width], is_valid

    def write(self, rows: NDArray[np.int64], values: NDArray[np.uint8]) -> None:
        """Writes the bytes [n, width] of rows [n]; those beyond the file's share of the disk are left out.

        Raises:
            OSError: The disk is full.
        """
        stride = count_row_bytes(self.width)
        for row, value in zip(rows.tolist(), values, strict=True):
            if row < self.max_rows:
                content = value.tobytes().ljust(stride - CRC_BYTES, b"\0")
                crc = struct.pack("=I", zlib.crc32(content))
                os.pwrite(self._file.fileno(), content + crc, PAGE_BYTES + row * stride)

    @property
    def seconds_per_view(self) -> float:
        """Seconds that the teacher takes for a view, on average of late; 0 where none was needed yet."""
        (seconds,) = struct.unpack("=d", os.pread(self._file.fileno(), 8, SECONDS_OFFSET))
        return float(seconds) if 0 <= seconds < 1000 else 0.0

    @seconds_per_view.setter
    def seconds_per_view(self, seconds: float) -> None:
        os.pwrite(self._file.fileno(), struct.pack("=d", seconds), SECONDS_OFFSET)


def open_cache_file(folder: Path, key: str, rows: int, width: int, max_bytes: int) -> CacheFile:
    """Returns the file of this key, created where there is none or none that can be trusted.

    Args:
        folder: Of the caches.
        key: Decides the outputs.
        rows: Views.
        width: Bytes of a view.
        max_bytes: What all files of the folder may take together; never more than half of what is free. The
            files that were unused for longest go first, those that a process has open never.

    Raises:
        OSError: The folder allows no such thing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.cache"
    header = _make_header(key, rows, width)
    size = PAGE_BYTES + rows * count_row_bytes(width)
    with _lock_folder(folder):
        if not _is_valid(path, header, size):
            _create(path, header, size)
        file = path.open("r+b", buffering=0)
        fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(path)
        room = _make_room(folder, path, size, max_bytes)
    return CacheFile(file, rows, width, max(0, room - PAGE_BYTES) // count_row_bytes(width))


def count_row_bytes(width: int) -> int:
    """Returns the bytes of a row: those of a view, filled up to whole words, and their CRC."""
    return -(-width // 4) * 4 + CRC_BYTES


def _make_header(key: str, rows: int, width: int) -> bytes:
    fields = {"is": MAGIC, "key": key, "rows": rows, "width": width, "row": "bytes, CRC-32"}
    return json.dumps(fields).encode().ljust(SECONDS_OFFSET)


def _is_valid(path: Path, header: bytes, size: int) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return file.read(SECONDS_OFFSET) == header


def _create(path: Path, header: bytes, size: int) -> None:
    """Whole or not at all; whoever has a bad one open keeps it to himself."""
    fresh = path.with_suffix(".partial")
    with fresh.open("wb") as file:
        file.write(header)
        file.truncate(size)
    fresh.replace(path)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_room(folder: Path, file: Path, size: int, max_bytes: int) -> int:
    """Bytes that the file may take beside the others, after unused ones were removed as needed."""
    others = sorted(
        (path for path in folder.glob("*.cache") if path != file), key=lambda p: p.stat().st_mtime
    )
    taken = {path: path.stat().st_blocks * 512 for path in (file, *others)}
    room = min(max_bytes, (shutil.disk_usage(folder).free + sum(taken.values())) // 2)
    for path in others:
        if sum(taken[other] for other in others if other in taken) + size <= room:
            break
        if _is_unused(path):
            path.unlink()
            del taken[path]
    return room - sum(taken[other] for other in others if other in taken)


def _is_unused(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
