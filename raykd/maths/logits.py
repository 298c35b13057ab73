"""Functions of logits that several methods share. Each keeps the dtype that it is given.

Legend: n rows, c classes.
"""

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7  # as released, sunshangquan/logit-standardization-KD


def standardize(logits: Tensor) -> Tensor:
    """Each row's z-score, with the unbiased standard deviation (arXiv:2403.01427). [n, c] -> [n, c].

    Read in sunshangquan/logit-standardization-KD, normalize(): (z - mean) / (1e-7 + std).
    """
    return (logits - logits.mean(dim=-1, keepdim=True)) / (EPSILON + logits.std(dim=-1, keepdim=True))


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of each row. [..., c], [..., c] -> [...]."""
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return divergence.sum(dim=-1) * temperature**2
