"""An epoch as it goes: the row that it ends in, and what its done steps have added up to by then.

The sums are a part of the state, so that a trial goes on inside a long epoch.
"""

from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
import torch.distributed as dist
from torch import Tensor

from raykd.teachers.teacher import Tally


class Row(TypedDict):
    """What one epoch reports."""

    epoch: int  # 1-based
    accuracy: float | None  # %, held-out images, averaged weights; None where nothing is held out
    accuracy_raw: float | None  # %, held-out images, the weights as they are
    lr: float
    seconds: float  # training and evaluation
    teacher_seconds: float  # of these, waiting for the teacher's answers
    teacher_hits: int  # views whose answers were in the teacher's table
    teacher_misses: int  # views that the teacher looked at
    teacher_seconds_saved: float  # by the hits
    images_per_second: float  # training images (each rotated view counts)
    terms: dict[str, float]  # raw loss terms, mean over the epoch


@dataclass
class Sums:
    """Of the steps of an epoch that are done."""

    steps: int = 0
    seconds: float = 0.0  # training
    teacher_seconds: float = 0.0  # of these, waiting for the teacher's answers
    teacher_hits: int = 0
    teacher_misses: int = 0
    teacher_seconds_saved: float = 0.0
    totals: dict[str, Tensor] = field(default_factory=dict)  # of the raw loss terms, on this rank

    def add(self, terms: dict[str, Tensor], waited: float) -> None:
        """One step more: its raw terms, and the seconds spent on the teacher's answer."""
        self.steps += 1
        self.teacher_seconds += waited
        for name, term in terms.items():
            self.totals[name] = self.totals.get(name, torch.zeros_like(term)) + term

    def end_stretch(self, seconds: float, known: Tally, now: Tally) -> None:
        """What a stretch of steps took, and what the teacher's table gave between its begin and now."""
        self.seconds += seconds
        self.teacher_hits += now.hits - known.hits
        self.teacher_misses += now.misses - known.misses
        self.teacher_seconds_saved += now.seconds_saved - known.seconds_saved

    def share(self) -> None:
        """The totals become their means over the ranks; done twice, nothing changes."""
        for total in self.totals.values():
            mean(total)

    def means(self) -> dict[str, float]:
        """The mean of each term over the steps, once the ranks have shared their totals."""
        return {name: float(total / self.steps) for name, total in self.totals.items()}

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def everywhere(lines: list[str]) -> list[str]:
    """The lines of all ranks, each once."""
    if not dist.is_initialized():
        return lines
    ranks: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(ranks, lines)
    return sorted({line for one in ranks for line in one})


def mean(value: Tensor) -> None:
    """In place: the mean over the ranks; nothing happens on one."""
    if dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()
