"""Tables of answers on a node's own disk, memory-mapped, shared by all processes there (house.md, ruling 5).

A row is one view's answer in half precision and a CRC of it. A row whose CRC is wrong (empty, torn by two
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

MAGIC = "raykd table of answers, 1"
PAGE = 4096
PACE = PAGE - 8  # where the header holds the seconds that a live answer took; not part of what is checked
CRC = 4  # bytes


class Table:
    """`rows` rows of `width` numbers. Made by `open_table`; the file stays locked against removal."""

    def __init__(self, file: IO[bytes], rows: int, width: int, most: int) -> None:
        self.width = width
        self._file, self.most = file, most  # rows from `most` on are not written
        weakref.finalize(self, file.close)
        self._cells = np.memmap(file, np.uint8, "r", PAGE, (rows, _stride(width)))

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """Rows [n] -> their numbers [n, width], and which of them are there [n]."""
        cells = self._cells[rows]
        values, kept = cells[:, :-CRC], cells[:, -CRC:].copy().view(np.uint32)[:, 0]
        there = kept == np.fromiter((zlib.crc32(row) for row in np.ascontiguousarray(values)), np.uint32)
        return np.ascontiguousarray(values).view(np.float16)[:, : self.width], there

    def write(self, rows: NDArray[np.int64], values: NDArray[np.float16]) -> None:
        """Keep the numbers [n, width] of rows [n]; those beyond the table's share of the disk are left out.
        OSError when the disk is full.
        """
        stride = _stride(self.width)
        for row, numbers in zip(rows.tolist(), values, strict=True):
            if row < self.most:
                content = numbers.tobytes().ljust(stride - CRC, b"\0")
                crc = struct.pack("=I", zlib.crc32(content))
                os.pwrite(self._file.fileno(), content + crc, PAGE + row * stride)

    @property
    def pace(self) -> float:
        """Seconds that a live answer takes, on average of late; 0 where none was needed yet."""
        (seconds,) = struct.unpack("=d", os.pread(self._file.fileno(), 8, PACE))
        return float(seconds) if 0 <= seconds < 1000 else 0.0

    @pace.setter
    def pace(self, seconds: float) -> None:
        os.pwrite(self._file.fileno(), struct.pack("=d", seconds), PACE)


def open_table(folder: Path, key: str, rows: int, width: int, most: int) -> Table:
    """The table of this key, made where there is none or none that can be trusted.

    `most`: bytes that all tables of the folder may take together; never more than half of what is free. The
    tables that were unused for longest go first, those that a process has open never. OSError where the
    folder allows no such thing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.table"
    header = _header(key, rows, width)
    size = PAGE + rows * _stride(width)
    with _alone(folder):
        if not _sound(path, header, size):
            _create(path, header, size)
        file = path.open("r+b", buffering=0)
        fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(path)
        room = _make_room(folder, path, size, most)
    return Table(file, rows, width, max(0, room - PAGE) // _stride(width))


def _stride(width: int) -> int:
    """Bytes of a row: its numbers, filled up to whole words, and their CRC."""
    return -(-2 * width // 4) * 4 + CRC


def _header(key: str, rows: int, width: int) -> bytes:
    words = {"is": MAGIC, "key": key, "rows": rows, "width": width, "numbers": "float16, CRC-32 a row"}
    return json.dumps(words).encode().ljust(PACE)


def _sound(path: Path, header: bytes, size: int) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return file.read(PACE) == header


def _create(path: Path, header: bytes, size: int) -> None:
    """Whole or not at all; whoever has a bad one open keeps it to himself."""
    fresh = path.with_suffix(".partial")
    with fresh.open("wb") as file:
        file.write(header)
        file.truncate(size)
    fresh.replace(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_room(folder: Path, own: Path, wanted: int, most: int) -> int:
    """Bytes that the own table may take beside the others, after unused ones were removed as needed."""
    others = sorted((path for path in folder.glob("*.table") if path != own), key=lambda p: p.stat().st_mtime)
    taken = {path: path.stat().st_blocks * 512 for path in (own, *others)}
    room = min(most, (shutil.disk_usage(folder).free + sum(taken.values())) // 2)
    for path in others:
        if sum(taken[other] for other in others if other in taken) + wanted <= room:
            break
        if _unused(path):
            path.unlink()
            del taken[path]
    return room - sum(taken[other] for other in others if other in taken)


def _unused(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
