"""A teacher whose answers are looked up in a table that all trials on a node share (house.md, ruling 5)."""

import logging
import os
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raykd.batch import Batch, View
from raykd.data import Catalogue
from raykd.teachers.cache_file import Table, open_table
from raykd.teachers.teacher import Answers, LiveTeacher, Tally

KEPT = frozenset({"logits", "embedding", "head"})  # the fields of a View that a table can answer

Rows = NDArray[np.int64]


class Copy(NamedTuple):
    """Answers on their way from a GPU to the table."""

    rows: Rows
    values: Tensor  # on the host, once the device has come to `ended`
    began: torch.Event
    ended: torch.Event


class TabledTeacher:
    """Looks answers up; what the table has not, the live teacher answers and the table keeps.

    A fresh answer is rounded as a kept one is, so that a trial learns the same whoever came first. Nothing
    here waits for a GPU.
    """

    def __init__(self, live: LiveTeacher, table: Table, device: torch.device) -> None:
        self.shapes, self.tally = live.shapes, Tally()
        self._live, self._table, self._device = live, table, device
        self._head = live.head
        self._copies: deque[Copy] = deque()

    def view(self, batch: Batch) -> View:
        assert batch.row is not None, "a table needs numbered views"
        while self._copies and self._copies[0].ended.query():
            rows, values, began, ended = self._copies.popleft()
            self._keep(rows, values, began.elapsed_time(ended) / 1000)
        rows = batch.row.numpy()
        kept, there = self._table.read(rows)
        hits = int(there.sum())
        self.tally.hits += hits
        self.tally.misses += len(rows) - hits
        self.tally.seconds_saved += hits * self._table.pace
        if hits == 0:
            values = self._fresh(batch.images, rows)
        else:
            values = self._on_device(kept).float()
            if hits < len(rows):
                missing = self._on_device(np.flatnonzero(~there))
                images = batch.images[missing].contiguous(memory_format=torch.channels_last)
                values = values.index_copy(0, missing, self._fresh(images, rows[~there]))
        logits, embedding = values[:, : self.shapes.classes], values[:, self.shapes.classes :]
        return View(logits, embedding, (), self._head, values.new_empty(len(rows), 0, 0, 0))

    def _fresh(self, images: Tensor, rows: Rows) -> Tensor:
        """The live answer [n, classes + d], float32, rounded to half precision and kept; as it is where that
        ends, at 65504.
        """
        if self._device.type == "cpu":
            began = time.perf_counter()
            live, rounded = self._answer(images)
            self._keep(rows, rounded, time.perf_counter() - began)
        else:
            start, end = (torch.Event(self._device, enable_timing=True) for _ in range(2))
            start.record()
            live, rounded = self._answer(images)
            host = torch.empty(rounded.shape, dtype=rounded.dtype, pin_memory=True)
            host.copy_(rounded, non_blocking=True)
            end.record()
            self._copies.append(Copy(rows, host, start, end))
        return torch.where(rounded.isfinite().all(dim=1, keepdim=True), rounded.float(), live)

    def _answer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        answer = self._live.look(images)
        live = torch.cat([answer.logits, answer.embedding], dim=1).float()
        return live, live.half()

    def _keep(self, rows: Rows, rounded: Tensor, seconds: float) -> None:
        values = rounded.numpy()
        sound = np.isfinite(values).all(axis=1)
        try:
            self._table.write(rows[sound], values[sound])
            pace, now = self._table.pace, seconds / len(rows)
            self._table.pace = pace + (now - pace) / 8 if pace else now
        except OSError as error:
            self._table.most = 0
            logging.getLogger(__name__).warning("the teacher's table takes no more: %s", error)

    def _on_device(self, array: NDArray[np.float16] | Rows) -> Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


def tabled(live: LiveTeacher, catalogue: Catalogue | None, gib: float, device: torch.device) -> Answers:
    """The teacher with its table on this node's disk, where all tables together may take so many GiB; the
    live one where views have no numbers or the disk allows no table.
    """
    if catalogue is None or gib == 0:
        return live
    rows, width = catalogue.views * catalogue.images, live.shapes.classes + live.shapes.embedding
    try:
        table = open_table(tables(), live.key(catalogue), rows, width, int(gib * 2**30))
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        logging.getLogger(__name__).warning("no table of the teacher's answers: %s", error)
        return live
    return TabledTeacher(live, table, device)


def tables() -> Path:
    """Where this node keeps tables: $RAYKD_CACHE/teachers, or ~/.cache/raykd/teachers."""
    return Path(os.environ.get("RAYKD_CACHE") or Path.home() / ".cache/raykd") / "teachers"
