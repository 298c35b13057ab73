"""DKD: decoupled knowledge distillation (Zhao et al., CVPR 2022, arXiv:2203.08679, Eqs. 5-7).

Official code followed: megvii-research/mdistiller, mdistiller/distillers/DKD.py. There the target class
is taken out of the second soft-max by a logit of -1000; here its column is left out, which is the same
number. The warm-up counts parts of the trial (20 of the paper's 240 epochs), and starts at 0 where the
released one, counting epochs from 1, starts at 1/20. `standardize` takes each row's z-score of both nets'
logits first (arXiv:2403.01427).
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.maths import ramp
from raykd.maths.logits import standardize
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.space import Choice, Range
from raykd.step import Setting, Step


class Weights(_base.Weights):
    target: Weight = 1.0  # alpha, 1 in every released setting
    non_target: Annotated[Weight, Range(0.5, 16, log=True)] = 8.0  # beta


class Config(_base.MethodConfig):
    name: Literal["dkd"] = "dkd"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    warm_up: Annotated[float, Field(ge=0, le=1), Range(0, 0.25)] = 20 / 240
    standardize: Annotated[bool, Choice((True, False))] = False
    weights: Weights = Weights()


def target_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """TCKD, T^2 KL of (target, all others), mean over the batch. Logits [n, c], labels [n] -> scalar."""
    return (
        _kl(_binary(student / temperature, labels), _binary(teacher / temperature, labels)) * temperature**2
    )


def non_target_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """NCKD, T^2 KL among the other classes, mean over the batch. Logits [n, c], labels [n] -> scalar."""
    log_student = F.log_softmax(_others(student / temperature, labels), dim=1)
    log_teacher = F.log_softmax(_others(teacher / temperature, labels), dim=1)
    return _kl(log_student, log_teacher) * temperature**2


def _kl(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def _others(x: Tensor, labels: Tensor) -> Tensor:
    """[n, c] without each row's target: [n, c - 1]."""
    column = torch.arange(x.shape[1] - 1, device=x.device)
    return x.gather(1, column + (column >= labels[:, None]))


def _binary(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities of the target and of all others together: [n, 2]."""
    log = F.log_softmax(logits, dim=1)
    return torch.cat(
        [log.gather(1, labels[:, None]), _others(log, labels).logsumexp(dim=1, keepdim=True)], dim=1
    )


class Method(_base.Method):
    needs = frozenset({"logits"})
    status = "official"
    paper = "Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679"

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__()
        _base.check_classes(setting)
        self.config = config

    def forward(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student.logits.float(), step.teacher.logits.detach().float()
        if self.config.standardize:
            student, teacher = standardize(student), standardize(teacher)
        part = ramp.linear(step.progress, self.config.warm_up)
        temperature = self.config.temperature
        return {
            "target": part * target_loss(student, teacher, step.labels, temperature),
            "non_target": part * non_target_loss(student, teacher, step.labels, temperature),
        }
