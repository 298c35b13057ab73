"""Contrastive losses that several methods share. Each keeps the dtype that it is given.

Legend: n anchors of this rank, m keys (of all ranks, or from a bank).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7  # as released, RepDistiller crd/criterion.py


def info_nce(scores: Tensor, first: int = 0) -> Tensor:
    """InfoNCE (arXiv:1807.03748, Eq. 4), mean of -log softmax(scores)[positive]. [n, m] -> scalar.

    Scores are similarities, already divided by the temperature; the positive of anchor i is key first + i.
    """
    return F.cross_entropy(scores, torch.arange(first, first + len(scores), device=scores.device))


def consistency(scores: Tensor, target: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(scores)), mean over rows; both learn. [n, m], [n, m] -> scalar."""
    log_scores, log_target = F.log_softmax(scores, dim=1), F.log_softmax(target, dim=1)
    return F.kl_div(log_scores, log_target, reduction="batchmean", log_target=True)


def nce(positive: Tensor, negative: Tensor, weight: Tensor, noise: float) -> Tensor:
    """CRD's loss (arXiv:1910.10699, Eqs. 17-18), mean over anchors. [n], [n, m], [n, m] -> scalar.

    Read in RepDistiller, crd/criterion.py. `positive` and `negative` are the critic's probabilities,
    exp(score) / Z; `noise` is negatives / images. Released, every negative has weight 1; a weight says
    how many draws it stands for.
    """
    is_data = torch.log(positive / (positive + noise + EPSILON))
    is_noise = torch.log(noise / (negative + noise + EPSILON))
    return -(is_data + (weight * is_noise).sum(dim=1)).mean()
