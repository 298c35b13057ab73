"""A teacher whose outputs are cached in a file that all trials on a node share."""

import logging
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raykd.batch import Batch, Outputs, Wrap, send
from raykd.clock import Clock, Moment
from raykd.data import ViewIndex
from raykd.errors import UserError
from raykd.paths import get_cache_folder
from raykd.teachers.cache_file import CacheFile, open_cache_file
from raykd.teachers.teacher import CacheStats, LiveTeacher, Teacher

CACHEABLE = frozenset(
    {"logits", "each_logits", "embedding", "head"}
)  # the fields of Outputs that a cache holds

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
FEWEST_COMPUTED = 8  # images of a forward pass on a CPU; from 4 on (oneDNN) an image's outputs are the same


class PendingCopy(NamedTuple):
    """Outputs on their way from the device to the cache file."""

    rows: Rows
    is_new: Mask  # of each row: whether the cache lacks it
    values: Tensor  # [n, bytes + 1], on the host, once the device has come to `ended`; last: if it is lost
    began: Moment
    ended: Moment


class CachedTeacher:
    """Reads outputs from the cache; those it lacks, the live teacher computes and the cache stores.

    A computed output is given as a stored one is, so that a trial learns the same whoever came first.
    Nothing here waits for a GPU.
    """

    def __init__(self, live: LiveTeacher, cache: CacheFile, device: torch.device) -> None:
        self.shapes, self.cache_stats = live.shapes, CacheStats()
        self._live, self._cache, self._device = live, cache, device
        self._head, self._clock = live.head, Clock(device)
        self._copies: deque[PendingCopy] = deque()

    def get_outputs(self, batch: Batch) -> Outputs:
        """Returns logits, embedding and the classifier of each view in the batch; no feature maps."""
        assert batch.row is not None, "a cache needs numbered views"
        while self._copies and self._clock.is_past(self._copies[0].ended):
            self._store(self._copies.popleft())
        rows = batch.row.numpy()
        cached, is_hit = self._cache.read(rows)
        hits, computed = int(is_hit.sum()), self._choose_computed(is_hit)
        self.cache_stats.hits += hits
        self.cache_stats.misses += len(rows) - hits
        self.cache_stats.seconds_saved += (len(rows) - len(computed)) * self._cache.seconds_per_view
        if len(computed) == len(rows):
            logits, embedding = self._compute(batch.images, rows, ~is_hit)
        else:
            logits, embedding = self._live.form.decode(self._to_device(cached), self.shapes)
            if len(computed):
                places = self._to_device(computed)
                images = batch.images[places].contiguous(memory_format=torch.channels_last)
                live = self._compute(images, rows[computed], ~is_hit[computed])
                logits, embedding = (
                    kept.index_copy(0, places, new)
                    for kept, new in zip((logits, embedding), live, strict=True)
                )
        return Outputs(logits, embedding, (), self._head, logits.new_empty(len(rows), 0, 0, 0))

    def wrap(self, wrap: Wrap) -> None:
        """Has the live teacher's forward pass wrapped."""
        self._live.wrap(wrap)

    def _choose_computed(self, is_hit: Mask) -> Rows:
        """The views that are passed through the teacher, ascending: on a GPU none or all.

        There it takes as long for one as for all, and shapes stay the same. On a CPU those that are missing,
        and others beside them: a batch of one to three images gives other numbers than a larger one.
        """
        missing, hits = np.flatnonzero(~is_hit), np.flatnonzero(is_hit)
        if not len(missing):
            return missing
        fewest = FEWEST_COMPUTED if self._device.type == "cpu" else len(is_hit)
        return np.sort(np.concatenate([missing, hits[: max(0, fewest - len(missing))]]))

    def _compute(self, images: Tensor, rows: Rows, is_new: Mask) -> tuple[Tensor, Tensor]:
        """The live logits [n, c] and embedding [n, d] as the form gives them; the new ones are stored."""
        began = self._clock.now()
        outputs = self._live.forward(images)
        kept = self._live.form.apply(outputs.logits, outputs.embedding, self.shapes)
        content = torch.cat([kept.rows, kept.is_lost.to(torch.uint8)], dim=1)
        if self._device.type == "cpu":
            self._store(PendingCopy(rows, is_new, content, began, self._clock.now()))
        else:
            host = torch.empty(content.shape, dtype=content.dtype, pin_memory=True)
            host.copy_(content, non_blocking=True)
            self._copies.append(PendingCopy(rows, is_new, host, began, self._clock.now()))
        return kept.logits, kept.embedding

    def _store(self, copy: PendingCopy) -> None:
        values, is_lost = np.split(copy.values.numpy(), [-1], axis=1)
        is_stored = copy.is_new & (is_lost[:, 0] == 0)
        try:
            self._cache.write(copy.rows[is_stored], values[is_stored])
            seconds = self._clock.seconds(copy.began, copy.ended)
            average, latest = self._cache.seconds_per_view, seconds / len(copy.rows)
            self._cache.seconds_per_view = average + (latest - average) / 8 if average else latest
        except OSError as error:
            self._cache.max_rows = 0
            logging.getLogger(__name__).warning("the teacher's cache takes no more: %s", error)

    def _to_device(self, array: NDArray[np.uint8] | Rows) -> Tensor:
        return send(torch.from_numpy(array), self._device)


def add_cache(
    live: LiveTeacher,
    view_index: ViewIndex | None,
    gib: float,
    device: torch.device,
    folder: Path | None = None,
) -> Teacher:
    """Returns the teacher with its cache on this node's disk.

    The live one where views have no numbers (`view_index` None) or the disk allows no cache.

    Args:
        live: The teacher.
        view_index: The numbers of the views.
        gib: What all caches of the node may take together; 0: no cache.
        device: Of the outputs.
        folder: Of all caches; None: this node's own.
    """
    if view_index is None or gib == 0:
        return live
    rows, width = view_index.views * view_index.images, live.form.count_bytes(live.shapes)
    try:
        folder = (folder or get_cache_folder()) / "teachers"
        cache = open_cache_file(folder, live.compute_cache_key(view_index), rows, width, int(gib * 2**30))
    except (OSError, UserError) as error:  # UserError: there is no home directory
        _warn_once(f"no cache of the teacher's outputs: {error}")
        return live
    return CachedTeacher(live, cache, device)


@lru_cache
def _warn_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)
