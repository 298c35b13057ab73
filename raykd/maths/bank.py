"""Memory banks: one feature of each training image, kept to draw negatives from (CRD, arXiv:1910.10699).

Read in RepDistiller, crd/memory.py (initial values, update, Z) and dataset/cifar100.py (negatives of
other classes). Legend: n anchors of this rank, d width.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.maths.gather import all_gather, num_ranks, rank_offset
from raykd.maths.nce import Negatives, mean_exp, nce
from raykd.maths.step_seed import StepSeed

Sampling = Literal["shared", "per_sample"]


def init_bank(images: int, dim: int) -> Tensor:
    """Returns [images, dim], uniform within 1 / sqrt(dim / 3), from torch's global generator."""
    bound = 1 / math.sqrt(dim / 3)
    return torch.empty(images, dim).uniform_(-bound, bound)


@torch.no_grad()
def update_bank(bank: Tensor, index: Tensor, rows: Tensor, momentum: float) -> None:
    """In place, for all ranks' rows: bank[index] = normalise(momentum * bank[index] + (1 - momentum) * rows).

    bank [images, d], index [n] without repeats, rows [n, d].
    """
    index, rows = all_gather(index), all_gather(rows.detach())
    mixed = momentum * bank[index] + (1 - momentum) * rows
    bank.index_copy_(0, index, F.normalize(mixed, dim=1))


def draw_per_sample(anchor_class: Tensor, labels: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """As released: `num` distinct images of other classes for one anchor, [num].

    Its class [1], those of the images [images]. With repeats where fewer than `num` images are left.
    """
    rows = torch.randperm(len(labels), generator=generator, device=labels.device)
    rows = rows[labels[rows] != anchor_class]
    if len(rows) < num:
        repeats = torch.randint(len(rows), (num,), generator=generator, device=labels.device)
        rows = rows[repeats]
    return rows[:num]


def draw_shared(labels: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """One draw of min(num, images) distinct images for all anchors, [m], of images of classes [images].

    What an anchor keeps of it is a uniform draw from the other classes, so that for each anchor the expected
    loss is that of draw_per_sample, and the gather of n * num rows becomes a product of two matrices.
    """
    return torch.randperm(len(labels), generator=generator, device=labels.device)[:num]


class AnchorNegatives(NamedTuple):
    """Negatives of some of the anchors."""

    anchors: slice
    negatives: Negatives


class NegativeDraws(StepSeed):
    """Draws negatives by the seed and the number of steps, both kept in the state.

    Ranks that build it under one seed draw alike, so 2 ranks equal 1 process; torch's global generator gives
    the seed alone.
    """

    labels: Tensor

    def __init__(self, labels: Tensor, num: int, sampling: Sampling) -> None:
        super().__init__()
        self.num, self.sampling, self.seed, self.steps = num, sampling, 0, 0
        self.register_buffer("labels", labels, persistent=False)

    @property
    def is_first_step(self) -> bool:
        """Whether the draw at hand is the first one."""
        return self.steps == 1

    def draw(self, index: Tensor) -> Tensor:
        """Returns the next step's negatives for anchors at `index` [n]: for all [m], or for each [n, m]."""
        steps, self.steps = self.steps, self.steps + 1
        generator = torch.Generator(index.device)
        if self.sampling == "shared":
            return draw_shared(self.labels, self.num, generator.manual_seed(self.seed + steps))
        classes, rows = self.labels[index], []
        first = self.seed + steps * num_ranks() * len(index) + rank_offset(index)
        for k in range(len(index)):
            generator.manual_seed(first + k)
            rows.append(draw_per_sample(classes[k : k + 1], self.labels, self.num, generator))
        return torch.stack(rows)

    def list_negatives(self, index: Tensor, rows: Tensor) -> list[AnchorNegatives]:
        """Returns a draw for anchors at `index` [n] as negatives: of all at once, or of each by itself."""
        anchor_classes, classes = self.labels[index], self.labels[rows]
        if rows.dim() == 1:
            return [AnchorNegatives(slice(None), Negatives(rows, classes, anchor_classes))]
        return [
            AnchorNegatives(slice(k, k + 1), Negatives(rows[k], classes[k], anchor_classes[k : k + 1]))
            for k in range(len(index))
        ]


class MemoryBank(NegativeDraws):
    """A student's and a teacher's bank, and the loss of each side's features against the other's bank."""

    student: Tensor
    teacher: Tensor
    z_student: Tensor
    z_teacher: Tensor

    def __init__(
        self, labels: Tensor, dim: int, num: int, sampling: Sampling, temperature: float, momentum: float
    ) -> None:
        super().__init__(labels, num, sampling)
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("student", init_bank(len(labels), dim))
        self.register_buffer("teacher", init_bank(len(labels), dim))
        self.register_buffer("z_student", torch.zeros(()))
        self.register_buffer("z_teacher", torch.zeros(()))
        self.draw_seed()

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor, rows: Tensor) -> Tensor:
        """Features [n, d], [n, d] of the images at index [n], `draw`'s rows -> scalar; updates the banks."""
        draws = self.list_negatives(index, rows)
        sides = [
            (student / self.temperature, self.teacher, self.z_student),
            (teacher / self.temperature, self.student, self.z_teacher),
        ]
        if self.is_first_step:
            for anchors, bank, z in sides:
                self._set_z(z, anchors, bank, index, draws)
        losses = []
        for chosen, negatives in draws:
            for anchors, bank, z in sides:
                losses.append(nce(anchors[chosen], bank[index[chosen]], bank, negatives, self.num, z))
        self.update(student, teacher, index)
        return torch.cat(losses).sum() / len(index)

    def update(self, student: Tensor, teacher: Tensor, index: Tensor) -> None:
        """Ends a step: moves the rows at index [n] towards features [n, d], [n, d]."""
        update_bank(self.student, index, student, self.momentum)
        update_bank(self.teacher, index, teacher, self.momentum)

    @torch.no_grad()
    def normalize(self) -> None:
        """Scales the rows of both banks to length 1, as all are after their first update."""
        for bank in (self.student, self.teacher):
            bank.copy_(F.normalize(bank, dim=1))

    @torch.no_grad()
    def _set_z(
        self, z: Tensor, anchors: Tensor, bank: Tensor, index: Tensor, draws: list[AnchorNegatives]
    ) -> None:
        """Z is fixed by the first batch: the mean of exp(score) over positives and negatives, by images."""
        totals = [
            (anchors[chosen] * bank[index[chosen]]).sum(dim=1).exp()
            + self.num * mean_exp(anchors[chosen], bank, negatives)
            for chosen, negatives in draws
        ]
        z.copy_(all_gather(torch.cat(totals)).mean() * len(bank) / (self.num + 1))
