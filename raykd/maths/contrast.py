"""Contrastive losses that several methods share. Each keeps the dtype that it is given.

Legend: n anchors of this rank, m keys (of all ranks).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(scores: Tensor, first: int = 0) -> Tensor:
    """InfoNCE (arXiv:1807.03748, Eq. 4), mean of -log softmax(scores)[positive]. [n, m] -> scalar.

    Scores are similarities, already divided by the temperature; the positive of anchor i is key first + i.
    """
    return F.cross_entropy(scores, torch.arange(first, first + len(scores), device=scores.device))


def consistency_loss(scores: Tensor, target: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(scores)), mean over rows; both learn. [n, m], [n, m] -> scalar."""
    log_scores, log_target = F.log_softmax(scores, dim=1), F.log_softmax(target, dim=1)
    return F.kl_div(log_scores, log_target, reduction="batchmean", log_target=True)
