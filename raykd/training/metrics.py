"""An epoch's metrics, and the totals of its completed steps from which they are computed.

The totals are a part of the state, so that a trial goes on inside a long epoch.
"""

from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raykd.maths.foreach import add_to_each
from raykd.teachers.teacher import CacheStats


class EpochMetrics(TypedDict):
    """What one epoch reports: a row of epochs.json."""

    epoch: int  # 1-based
    accuracy: float | None  # %, held-out images, the EMA of the weights; None where nothing is held out
    accuracy_raw: float | None  # %, held-out images, the weights as they are
    lr: float
    seconds: float  # training and evaluation
    teacher_seconds: float  # of these, the teacher's outputs took, on the device's own clock
    teacher_hits: int  # views whose outputs were in the teacher's cache
    teacher_misses: int  # views whose outputs were not
    teacher_seconds_saved: float  # by the hits
    images_per_second: float  # training images (each rotated view counts)
    terms: dict[str, float]  # raw loss terms, mean over the epoch
    peer_accuracies: NotRequired[list[float]]  # as accuracy, of each other student, where there are some


@dataclass
class EpochTotals:
    """Totals over the completed steps of an epoch."""

    steps: int = 0
    seconds: float = 0.0  # training
    teacher_seconds: float = 0.0  # of these, the teacher's outputs took
    teacher_hits: int = 0
    teacher_misses: int = 0
    teacher_seconds_saved: float = 0.0
    terms: dict[str, Tensor] = field(default_factory=dict)  # sums of the raw loss terms, on this rank

    def add_step(self, terms: dict[str, Tensor]) -> None:
        """Adds a step's raw terms."""
        self.steps += 1
        if self.terms:
            add_to_each([self.terms[name] for name in terms], list(terms.values()))
        else:
            self.terms = {name: term.clone() for name, term in terms.items()}

    def add_interval(
        self, seconds: float, teacher_seconds: float, before: CacheStats, after: CacheStats
    ) -> None:
        """Adds the seconds of some steps, of them the teacher's, and what its cache gave meanwhile."""
        self.seconds += seconds
        self.teacher_seconds += teacher_seconds
        self.teacher_hits += after.hits - before.hits
        self.teacher_misses += after.misses - before.misses
        self.teacher_seconds_saved += after.seconds_saved - before.seconds_saved

    def average_over_ranks(self) -> None:
        """Replaces the terms by their means over the ranks; done twice, nothing changes."""
        for total in self.terms.values():
            all_reduce_mean(total)

    def mean_terms(self) -> dict[str, float]:
        """Returns the mean of each term over the steps, once they are averaged over the ranks."""
        return {name: float(total / self.steps) for name, total in self.terms.items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns the fields by name: EpochTotals(**state) is this again."""
        return dict(vars(self))


def gather_unique(lines: list[str]) -> list[str]:
    """Returns the lines of all ranks, each once."""
    if not dist.is_initialized():
        return lines
    ranks: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(ranks, lines)
    return sorted({line for rank_lines in ranks for line in rank_lines})


def all_reduce_mean(value: Tensor) -> None:
    """Replaces a tensor by its mean over the ranks, in place; nothing happens on one."""
    if dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()


@torch.no_grad()
def average_statistics(net: nn.Module) -> None:
    """Replaces a net's running statistics by their means over the ranks, in place."""
    for buffer in net.buffers():
        if buffer.is_floating_point():
            all_reduce_mean(buffer)
