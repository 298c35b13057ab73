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
    """The four terms, scalars."""

    vcl: Tensor  # contrast within each net
    soft_vcl: Tensor  # divergence of the nets' similarities within
    icl: Tensor  # contrast across nets
    soft_icl: Tensor  # divergence of the similarities across


def find_pairs(labels: Tensor) -> Pairs:
    """Labels [n] of this rank's rows -> the pairs with all ranks' rows."""
    keys = all_gather(labels)
    own = rank_offset(labels) + torch.arange(len(labels), device=labels.device)
    is_own = own[:, None] == torch.arange(len(keys), device=labels.device)
    return Pairs(labels[:, None] == keys, is_own)


def supervised_contrast(scores: Tensor, pairs: Pairs) -> Tensor:
    """-log softmax of the positives, mean over an anchor's positives and over anchors. [n, m] -> scalar.

    Positives are the other images of its class; its own image stands in no sum. An anchor without positives
    counts as 0.
    """
    log_total = scores.masked_fill(pairs.is_own, -math.inf).logsumexp(dim=1, keepdim=True)
    is_positive = pairs.same_class & ~pairs.is_own
    total = ((scores - log_total) * is_positive).sum(dim=1)
    return -(total / is_positive.sum(dim=1).clamp(min=1)).mean()


def mutual_terms(
    features: Sequence[Tensor], pairs: Pairs, temperature: float, kl_temperature: float
) -> MutualTerms:
    """The terms of unit features [n, d] of two or more nets, summed over nets or ordered pairs of nets."""
    keys = [all_gather(x) for x in features]
    nets = range(len(features))
    scores = {(i, j): features[i] @ keys[j].T / temperature for i in nets for j in nets}

    def diverge(student: tuple[int, int], target: tuple[int, int]) -> Tensor:
        return soft_divergence(scores[student], scores[target].detach(), kl_temperature).mean()

    across = [(i, j) for i in nets for j in nets if i != j]
    return MutualTerms(
        torch.stack([supervised_contrast(scores[i, i], pairs) for i in nets]).sum(),
        torch.stack([diverge((i, i), (j, j)) for i, j in across]).sum(),
        torch.stack([supervised_contrast(scores[pair], pairs) for pair in across]).sum(),
        torch.stack([diverge((i, j), (j, i)) for i, j in across]).sum(),
    )
