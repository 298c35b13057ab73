"""Relations of features to anchors, contrasted with a bank's (CRCD, arXiv:2103.16367).

Read in Lechatelia/CRCD, crcd/memory.py and crcd/criterion.py. The anchors are the rows that a bank keeps of
the global batch's images. A relation is the unit vector from an anchor to a feature; CRD's loss (nce.py) is
taken over all pairs of an image and an anchor. As many anchors are worked on at once as CHUNK allows, so
memory does not grow with anchors * negatives.

Legend: n images of this rank, b anchors, m negatives, d width.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.maths.bank import AnchorNegatives, MemoryBank, Sampling
from raykd.maths.gather import all_gather
from raykd.maths.nce import EPSILON

CHUNK = 2**22  # numbers that the relations of negatives take at once
OFFSET = 1e-6  # as released: of the difference, so that it is never 0


def relate(features: Tensor, anchors: Tensor) -> Tensor:
    """Unit vectors from each anchor to each feature. [n, d], [b, d] -> [b, n, d]."""
    return F.normalize(features - anchors[:, None] + OFFSET, dim=2)


def mean_exp(queries: Tensor, keys: Tensor, anchors: Tensor, same: Tensor) -> Tensor:
    """Mean of exp(query * relation of a negative) over those of other classes, no gradient.

    Queries [b, n, d], negatives [m, d], anchors [b, d], whether classes are the same [n, m] -> [b, n].
    """
    totals = [s.exp_().sum(dim=2) for _, _, s in _iterate_chunks(queries.detach(), keys, anchors, same)]
    return torch.cat(totals) / _count(same)


def mean_loss(queries: Tensor, keys: Tensor, anchors: Tensor, same: Tensor, shift: Tensor) -> Tensor:
    """Mean of softplus(query * relation - shift) over negatives of other classes; shapes as in mean_exp.

    Only `queries` have a gradient; it is computed in the forward pass.
    """
    loss: Tensor = _MeanLoss.apply(queries, keys, anchors, same, shift)
    return loss


class _MeanLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, anchors: Tensor, same: Tensor, shift: Tensor
    ) -> Tensor:
        losses, slope = [], torch.empty_like(queries)
        for chunk, relations, scores in _iterate_chunks(queries, keys, anchors, same):
            scores.sub_(shift)
            losses.append(F.softplus(scores).sum(dim=2))
            slope[chunk] = scores.sigmoid_() @ relations
        ctx.save_for_backward(slope / _count(same)[:, None])
        return torch.cat(losses) / _count(same)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0][:, :, None] * ctx.saved_tensors[0], None, None, None, None


def _count(same: Tensor) -> Tensor:
    """How many negatives an image has, at least 1. [n, m] -> [n]."""
    return (~same).sum(dim=1).clamp(min=1)


def _iterate_chunks(
    queries: Tensor, keys: Tensor, anchors: Tensor, same: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some anchors; the relations of the negatives to them [c, m, d]; inner products [c, n, m]."""
    size = max(1, CHUNK // keys.numel())
    for first in range(0, len(anchors), size):
        chunk = slice(first, first + size)
        relations = relate(keys, anchors[chunk])
        yield chunk, relations, (queries[chunk] @ relations.mT).masked_fill_(same, -math.inf)


class RelationBank(nn.Module):
    """A student's and a teacher's bank, and the loss of each side's relations to anchors of the other's."""

    def __init__(
        self, labels: Tensor, dim: int, num: int, sampling: Sampling, temperature: float, momentum: float
    ) -> None:
        super().__init__()
        self.memory = MemoryBank(labels, dim, num, sampling, temperature, momentum)
        self.memory.normalize()

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor, rows: Tensor) -> Tensor:
        """Unit features [n, d], [n, d] of the images at index [n] -> scalar; it updates the banks.

        `rows` are the draw of `memory`.
        """
        memory, draws = self.memory, self.memory.list_negatives(index, rows)
        sides = (student, memory.teacher, memory.z_student), (teacher, memory.student, memory.z_teacher)
        losses = [self._contrast(features, bank, z, index, draws) for features, bank, z in sides]
        memory.update(student, teacher, index)
        return torch.stack(losses).sum()

    def _contrast(
        self, features: Tensor, bank: Tensor, z: Tensor, index: Tensor, draws: list[AnchorNegatives]
    ) -> Tensor:
        """One side's loss, mean over images and anchors; Z is fixed by the first batch, as CRD's."""
        anchors, num = bank[all_gather(index)], self.memory.num
        queries = relate(features, anchors) / self.memory.temperature
        positive = (queries * relate(bank[index], anchors)).sum(dim=2)

        def over_draws(function: Callable[..., Tensor], *options: Tensor) -> Tensor:
            """The function of each draw's images and negatives, side by side: [b, n]."""
            parts = [
                function(
                    queries[:, images],
                    bank[negatives.rows],
                    anchors,
                    negatives.anchor_classes[:, None] == negatives.classes,
                    *options,
                )
                for images, negatives in draws
            ]
            return torch.cat(parts, dim=1)

        if self.memory.is_first_step:
            with torch.no_grad():
                total = (positive.exp() + num * over_draws(mean_exp)).mean()
                z.copy_(all_gather(total[None]).mean() * len(bank) / (num + 1))
        noise_rate = num / len(bank)
        shift = torch.log(z * (noise_rate + EPSILON))
        negative = over_draws(mean_loss, shift) + math.log1p(EPSILON / noise_rate)
        return (F.softplus(shift - positive) + num * negative).mean()
