"""Supervised contrast among the features of several nets (MCL, arXiv:2104.12565; L-MCL, arXiv:2207.11518).

Read in winycg/MCL, losses/cifar_sup_mcl_loss.py. Keys are all ranks' rows.
Legend: n rows of this rank, m rows of all ranks, d width.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.maths.gather import all_gather, rank_offset
from raykd.maths.logits import soft_divergence


class Projection(nn.Module):
    """Features [n, width] -> unit vectors [n, dim], by two layers."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, features: Tensor) -> Tensor:
        """Returns the unit vectors, float32."""
        return F.normalize(self.layers(features.float()), dim=1)


class Pairs(NamedTuple):
    """Which keys of all ranks are of an anchor's class, and which one is the anchor's own image: [n, m]."""

    same_class: Tensor
    is_own: Tensor


class MutualTerms(NamedTuple):
    """The four terms: scalars, but for the first."""

    vcl: Tensor  # contrast of a feature with itself, of each feature
    soft_vcl: Tensor  # divergence of the similarities within two features
    icl: Tensor  # contrast across nets
    soft_icl: Tensor  # divergence of the similarities across, one way and the other


def find_pairs(labels: Tensor) -> Pairs:
    """Labels [n] of this rank's rows -> the pairs with all ranks' rows."""
    keys = all_gather(labels)
    own = rank_offset(labels) + torch.arange(len(labels), device=labels.device)
    is_own = own[:, None] == torch.arange(len(keys), device=labels.device)
    return Pairs(labels[:, None] == keys, is_own)


def supervised_contrast(scores: Tensor, pairs: Pairs) -> Tensor:
    """-log softmax of the positives, mean over an anchor's positives and over anchors. [..., n, m] -> [...].

    Positives are the other images of its class; its own image stands in no sum. An anchor without positives
    counts as 0.
    """
    log_total = scores.masked_fill(pairs.is_own, -math.inf).logsumexp(dim=-1, keepdim=True)
    is_positive = pairs.same_class & ~pairs.is_own
    total = ((scores - log_total) * is_positive).sum(dim=-1)
    return -(total / is_positive.sum(dim=-1).clamp(min=1)).mean(dim=-1)


def mutual_terms(
    features: Sequence[Sequence[Tensor]], pairs: Pairs, temperature: float, kl_temperature: float
) -> MutualTerms:
    """The terms of unit features [n, d], some of each of two or more nets.

    `vcl` is of each feature; the others are summed over the ordered pairs of features of different nets.
    """
    anchors = torch.stack([x for own in features for x in own])  # [features, n, d]
    keys = torch.stack([all_gather(x) for own in features for x in own])
    scores = anchors[:, None] @ keys.mT / temperature  # [features, features, n, m]
    within = scores.diagonal().permute(2, 0, 1)  # [features, n, m]
    across = torch.ones(scores.shape[:2], device=scores.device)  # but where both are of the same net
    first = 0
    for own in features:
        across[first : first + len(own), first : first + len(own)] = 0
        first += len(own)

    def diverge(students: Tensor, targets: Tensor) -> Tensor:
        return (soft_divergence(students, targets.detach(), kl_temperature).mean(dim=-1) * across).sum()

    return MutualTerms(
        supervised_contrast(within, pairs),
        diverge(within[:, None], within),
        (supervised_contrast(scores, pairs) * across).sum(),
        diverge(scores, scores.transpose(0, 1)),
    )
