"""Noise-contrastive estimation against a bank, for CRD's loss (arXiv:1910.10699, Eqs. 17-18).

Keys are read in chunks, so memory does not grow with anchors * negatives. Legend: n anchors, d
width, m negatives.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK, GPU_CHUNK = 2048, 16384  # a GPU waits longer for a launch than for a larger product
EPSILON = 1e-7  # as released, RepDistiller crd/criterion.py


class Negatives(NamedTuple):
    """Rows of a bank for n anchors, each of which leaves out those of its own class."""

    rows: Tensor  # [m]
    classes: Tensor  # [m], those of the rows
    anchor_classes: Tensor  # [n]


def mean_exp(anchors: Tensor, bank: Tensor, negatives: Negatives) -> Tensor:
    """Mean of exp(inner product) over an anchor's negatives, no gradient. [n, d], [images, d] -> [n]."""
    total, left_out = torch.zeros_like(anchors[:, 0]), torch.zeros_like(negatives.anchor_classes)
    for _, scores, same in _iterate_chunks(anchors.detach(), bank, negatives):
        total += scores.exp_().sum(dim=1)
        left_out += same.sum(dim=1)
    return total / (len(negatives.rows) - left_out).clamp(min=1)


def mean_loss(anchors: Tensor, bank: Tensor, negatives: Negatives, shift: Tensor) -> Tensor:
    """Mean of softplus(inner product - shift) over an anchor's negatives. [n, d], [images, d] -> [n].

    `shift` is [] or [n]. Only `anchors` have a gradient; it is computed in the forward pass.
    """
    loss: Tensor = _MeanLoss.apply(anchors, bank, *negatives, shift)
    return loss


def nce(anchors: Tensor, positive: Tensor, bank: Tensor, negatives: Negatives, num: int, z: Tensor) -> Tensor:
    """CRD's loss of each anchor. Anchors over the temperature [n, d], their rows of the bank [n, d] -> [n].

    `z` is [] or [n].

    Read in RepDistiller, crd/criterion.py: -log(p / (p + c)) - sum over negatives of log(k / (p + c)), with
    p = exp(score) / z, k = num / images, c = k + 1e-7. That is softplus(shift - score) for the positive and
    softplus(score - shift) + log(c / k) for a negative, shift = log(z c). An anchor's negatives stand for
    `num`, however many of them are left.
    """
    noise_rate = num / len(bank)
    shift = torch.log(z * (noise_rate + EPSILON))
    first = F.softplus(shift - (anchors * positive).sum(dim=1))
    return first + num * (mean_loss(anchors, bank, negatives, shift) + math.log1p(EPSILON / noise_rate))


class _MeanLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        bank: Tensor,
        rows: Tensor,
        classes: Tensor,
        anchor_classes: Tensor,
        shift: Tensor,
    ) -> Tensor:
        loss, slope = torch.zeros_like(anchors[:, 0]), torch.zeros_like(anchors)
        left_out = torch.zeros_like(anchor_classes)
        for keys, scores, same in _iterate_chunks(anchors, bank, Negatives(rows, classes, anchor_classes)):
            scores.T.sub_(shift)
            loss += F.softplus(scores).sum(dim=1)
            slope.addmm_(scores.sigmoid_(), keys)
            left_out += same.sum(dim=1)
        count = (len(rows) - left_out).clamp(min=1)
        ctx.save_for_backward(slope / count[:, None])
        return loss / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0][:, None] * ctx.saved_tensors[0], None, None, None, None, None


def _iterate_chunks(
    anchors: Tensor, bank: Tensor, negatives: Negatives
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Some rows of the bank [k, d]; inner products [n, k], -inf where left out; where that is [n, k]."""
    chunk = CHUNK if bank.device.type == "cpu" else GPU_CHUNK
    for first in range(0, len(negatives.rows), chunk):
        keys = bank.index_select(0, negatives.rows[first : first + chunk])
        same = negatives.anchor_classes[:, None] == negatives.classes[first : first + chunk]
        yield keys, (anchors @ keys.T).masked_fill_(same, -math.inf), same
