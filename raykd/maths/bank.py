"""Banks: one remembered feature for each training image, to draw negatives from (CRD, arXiv:1910.10699).

Read in RepDistiller, crd/memory.py (initial values, update, Z) and dataset/cifar100.py (negatives of
other classes). Legend: n anchors of this rank, d width.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.maths.gather import gather, num_ranks, offset
from raykd.maths.noise import Negatives, mean_exp, nce

Way = Literal["shared", "per_sample"]


def new_bank(images: int, dim: int) -> Tensor:
    """[images, dim], uniform within 1 / sqrt(dim / 3), from torch's global generator."""
    bound = 1 / math.sqrt(dim / 3)
    return torch.empty(images, dim).uniform_(-bound, bound)


@torch.no_grad()
def update(bank: Tensor, index: Tensor, rows: Tensor, momentum: float) -> None:
    """In place, for all ranks' rows: bank[index] = normalise(momentum * bank[index] + (1 - momentum) * rows).

    bank [images, d], index [n] without repeats, rows [n, d].
    """
    index, rows = gather(index), gather(rows.detach())
    mixed = momentum * bank[index] + (1 - momentum) * rows
    bank.index_copy_(0, index, F.normalize(mixed, dim=1))


def own_draw(own: Tensor, labels: Tensor, num: int, generator: torch.Generator) -> Negatives:
    """The released way: `num` distinct images of other classes for one anchor.

    Its class [1], those of the images [images]. With repeats where fewer than `num` images are left.
    """
    rows = torch.randperm(len(labels), generator=generator, device=labels.device)
    rows = rows[labels[rows] != own]
    if len(rows) < num:
        repeats = torch.randint(len(rows), (num,), generator=generator, device=labels.device)
        rows = rows[repeats]
    return Negatives(rows[:num], labels[rows[:num]], own)


def shared_draw(own: Tensor, labels: Tensor, num: int, generator: torch.Generator) -> Negatives:
    """One draw of min(num, images) distinct images for all anchors, of classes `own` [n].

    What an anchor keeps of it is a uniform draw from the other classes, so that for each anchor the expected
    loss is that of own_draw, and the gather of n * num rows becomes a product of two matrices.
    """
    rows = torch.randperm(len(labels), generator=generator, device=labels.device)[:num]
    return Negatives(rows, labels[rows], own)


class Draw(NamedTuple):
    """Negatives of some of the anchors."""

    anchors: slice
    negatives: Negatives


class Memory(nn.Module):
    """A student's and a teacher's bank, and the loss of each side's features against the other side's bank.

    Ranks that build it under one seed draw alike, so 2 ranks equal 1 process. The draws depend on the
    seed and on the number of steps, both kept in the state, and not on torch's global generator.
    """

    labels: Tensor
    student: Tensor
    teacher: Tensor
    z_student: Tensor
    z_teacher: Tensor

    def __init__(
        self, labels: Tensor, dim: int, num: int, way: Way, temperature: float, momentum: float
    ) -> None:
        super().__init__()
        self.num, self.way, self.temperature, self.momentum = num, way, temperature, momentum
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("student", new_bank(len(labels), dim))
        self.register_buffer("teacher", new_bank(len(labels), dim))
        self.register_buffer("z_student", torch.zeros(()))
        self.register_buffer("z_teacher", torch.zeros(()))
        self.seed, self.steps = int(torch.randint(2**62, (), device="cpu")), 0

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.seed, self.steps], device="cpu")

    def set_extra_state(self, state: Any) -> None:
        self.seed, self.steps = state.tolist()

    def draws(self, index: Tensor) -> Iterator[Draw]:
        """This step's negatives for the anchors at `index` [n]: for all at once, or for each its own."""
        own, generator = self.labels[index], torch.Generator(index.device)
        if self.way == "shared":
            generator.manual_seed(self.seed + self.steps)
            yield Draw(slice(None), shared_draw(own, self.labels, self.num, generator))
            return
        first, joined = offset(index), num_ranks() * len(index)
        for k in range(len(index)):
            generator.manual_seed(self.seed + self.steps * joined + first + k)
            yield Draw(slice(k, k + 1), own_draw(own[k : k + 1], self.labels, self.num, generator))

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor) -> Tensor:
        """Features [n, d], [n, d] of the images at index [n] -> scalar; then the banks take them in."""
        sides = [
            (student / self.temperature, self.teacher, self.z_student),
            (teacher / self.temperature, self.student, self.z_teacher),
        ]
        if self.steps == 0:
            for anchors, bank, z in sides:
                self._fix(z, anchors, bank, index)
        losses = []
        for own, negatives in self.draws(index):
            for anchors, bank, z in sides:
                losses.append(nce(anchors[own], bank[index[own]], bank, negatives, self.num, z))
        update(self.student, index, student, self.momentum)
        update(self.teacher, index, teacher, self.momentum)
        self.steps += 1
        return torch.cat(losses).sum() / len(index)

    @torch.no_grad()
    def _fix(self, z: Tensor, anchors: Tensor, bank: Tensor, index: Tensor) -> None:
        """Z is fixed by the first batch: the mean of exp(score) over positives and negatives, by images."""
        totals = [
            (anchors[own] * bank[index[own]]).sum(dim=1).exp()
            + self.num * mean_exp(anchors[own], bank, negatives)
            for own, negatives in self.draws(index)
        ]
        z.copy_(gather(torch.cat(totals)).mean() * len(bank) / (self.num + 1))
