"""Functions of logits that several methods share. Each keeps the dtype that it is given.

Legend: n rows, c classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7  # as released, sunshangquan/logit-standardization-KD


def standardize(logits: Tensor) -> Tensor:
    """Each row's z-score, with the unbiased standard deviation (arXiv:2403.01427). [n, c] -> [n, c].

    Read in sunshangquan/logit-standardization-KD, normalize(): (z - mean) / (1e-7 + std).
    """
    return (logits - logits.mean(dim=-1, keepdim=True)) / (EPSILON + logits.std(dim=-1, keepdim=True))


def prepare_logits(student: Tensor, teacher: Tensor, as_z_scores: bool) -> tuple[Tensor, Tensor]:
    """Two nets' logits [..., c] in float32, the teacher's without gradient; as z-scores if `as_z_scores`."""
    student, teacher = student.float(), teacher.detach().float()
    return (standardize(student), standardize(teacher)) if as_z_scores else (student, teacher)


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of each row. [..., c], [..., c] -> [...]."""
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    return _kl_divergence(log_student, log_teacher) * temperature**2


def target_divergence(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """DKD's TCKD: T^2 KL of (target, all others together) of each row. [n, c], [n, c], [n] -> [n]."""
    log_student, log_teacher = (_binary_log_probs(x / temperature, labels) for x in (student, teacher))
    return _kl_divergence(log_student, log_teacher) * temperature**2


def non_target_divergence(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """DKD's NCKD: T^2 KL among the other classes of each row. [n, c], [n, c], [n] -> [n]."""
    return soft_divergence(_drop_target(student, labels), _drop_target(teacher, labels), temperature)


def _kl_divergence(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)


def _drop_target(x: Tensor, labels: Tensor) -> Tensor:
    """[n, c] without each row's target: [n, c - 1]."""
    column = torch.arange(x.shape[1] - 1, device=x.device)
    return x.gather(1, column + (column >= labels[:, None]))


def _binary_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities of the target and of all others together: [n, 2]."""
    log = F.log_softmax(logits, dim=1)
    others = _drop_target(log, labels).logsumexp(dim=1, keepdim=True)
    return torch.cat([log.gather(1, labels[:, None]), others], dim=1)
