"""Banks: one remembered feature for each training image, to draw negatives from (CRD, arXiv:1910.10699).

Read in RepDistiller, crd/memory.py (initial values, update, Z) and dataset/cifar100.py (negatives of
other classes). Legend: n anchors of this rank, d width, m negatives drawn.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.maths.contrast import nce
from raykd.maths.gather import gather, offset

Way = Literal["shared", "per_sample"]


class Draw(NamedTuple):
    """Negatives for n anchors."""

    rows: Tensor  # [m], the images, shared by the anchors, or [n, m]
    weight: Tensor  # [n, m], how many draws each stands for (0: same class); rows sum to num


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


def per_sample_draw(anchors: Tensor, labels: Tensor, num: int, generator: torch.Generator) -> Draw:
    """The released way: each anchor draws `num` distinct images of other classes.

    Labels [n], [images] -> [n, num]. With repeats where some anchor has fewer than `num` such images.
    """
    others = (anchors[:, None] != labels).float()
    repeats = num > int(others.sum(dim=1).min())
    rows = torch.multinomial(others, num, replacement=repeats, generator=generator)
    return Draw(rows, torch.ones_like(rows, dtype=others.dtype))


def shared_draw(anchors: Tensor, labels: Tensor, num: int, generator: torch.Generator) -> Draw:
    """One draw of distinct images for all anchors; those of an anchor's own class weigh 0, the rest `num`.

    Labels [n], [images] -> rows [min(num, images)]. For each anchor the expected loss is that of
    per_sample_draw, and the gather of n * num rows becomes a product of two matrices.
    """
    rows = torch.randperm(len(labels), generator=generator, device=labels.device)[:num]
    others = anchors[:, None] != labels[rows]
    return Draw(rows, others * (num / others.sum(dim=1, keepdim=True).clamp(min=1)))


def scores(anchors: Tensor, bank: Tensor, index: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Inner products of anchors [n, d] with their own rows of the bank [n] and their negatives' [n, m]."""
    rows = bank[negatives]
    negative = anchors @ rows.T if rows.dim() == 2 else torch.einsum("nd,nmd->nm", anchors, rows)
    return (anchors * bank[index]).sum(dim=1), negative


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

    def draw(self, index: Tensor) -> Draw:
        """The negatives of this step for the anchors at `index` [n]."""
        generator = torch.Generator(index.device).manual_seed(self.seed + self.steps)
        if self.way == "shared":
            return shared_draw(self.labels[index], self.labels, self.num, generator)
        joined = per_sample_draw(self.labels[gather(index)], self.labels, self.num, generator)
        own = slice(offset(index), offset(index) + len(index))
        return Draw(joined.rows[own], joined.weight[own])

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor, draw: Draw) -> Tensor:
        """Features [n, d], [n, d] of the images at index [n] -> scalar; then the banks take them in."""
        loss = self._side(student, self.teacher, self.z_student, index, draw)
        loss = loss + self._side(teacher, self.student, self.z_teacher, index, draw)
        update(self.student, index, student, self.momentum)
        update(self.teacher, index, teacher, self.momentum)
        self.steps += 1
        return loss

    def _side(self, anchors: Tensor, bank: Tensor, z: Tensor, index: Tensor, draw: Draw) -> Tensor:
        images = len(bank)
        positive, negative = (
            torch.exp(s / self.temperature) for s in scores(anchors, bank, index, draw.rows)
        )
        if self.steps == 0:  # Z is fixed by the first batch
            total = positive.detach() + (draw.weight * negative.detach()).sum(dim=1)
            z.copy_(gather(total).mean() * images / (self.num + 1))
        return nce(positive / z, negative / z, draw.weight, self.num / images)
