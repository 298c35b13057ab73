"""DCD: discriminative and consistent distillation (Giakoumoglou and Stathaki, arXiv:2407.11802).

Official code followed: giakoumoglou/distillers, imagenet/distillers/DCD.py and cifar/distillers/DCD.py;
the paper's own equations were not read. Scores are scale * cos(student, teacher) + bias, scale =
min(exp(tau), max_scale). The bias cancels in both soft-maxes, so it is inert and kept for parity only;
tau has no gradient once exp(tau) > max_scale. Where `learnable` is false the scale stays at its first
value, e, as in the released ImageNet code, whose optimiser is not given tau and bias (imagenet/
train_student.py:301-321); the CIFAR code then multiplies by 0.07 instead. `stop_gradient` keeps the
consistency target from following the student; the released code lets it.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.contrast import consistency_loss, info_nce
from raykd.maths.gather import all_gather, rank_offset
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    contrast: Annotated[Weight, Range(0.2, 5, log=True)] = 1.0
    consistency: Annotated[Weight, Choice((0.0, 0.1, 0.25, 0.5, 1.0, 2.0))] = 0.5  # alpha


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["dcd"] = "dcd"
    dim: Annotated[int, Field(gt=0), Choice((64, 128, 256))] = 128
    init_scale_log: Annotated[float, Range(0, 2.3)] = 1.0
    max_scale: Annotated[float, Field(gt=0), Choice((10.0, 20.0, 50.0, 100.0))] = 10.0
    init_bias: float = 0.0  # inert, so it has no range
    learnable: Annotated[bool, Choice((True, False))] = True
    stop_gradient: bool = False
    weights: Weights = Weights()


def similarities(student: Tensor, teacher: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Unit features [n, d] -> students over all ranks' teachers, teachers over all students: [n, m] x 2."""
    return scale * (student @ all_gather(teacher).T) + bias, scale * (teacher @ all_gather(student).T) + bias


class Method(_base.Method):
    """Contrasts both nets' projections within the batch, and keeps the two directions consistent."""

    config: Config
    needs = frozenset({"embedding"})
    status = "official"
    paper = "Discriminative and Consistent Representation Distillation, arXiv:2407.11802"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        self.student_head = nn.Linear(context.student.embedding, config.dim)
        self.teacher_head = nn.Linear(context.teacher.embedding, config.dim)
        self.tau = nn.Parameter(torch.tensor(config.init_scale_log), requires_grad=config.learnable)
        self.bias = nn.Parameter(torch.tensor(config.init_bias), requires_grad=config.learnable)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: contrast, consistency."""
        student = F.normalize(self.student_head(batch.student.embedding.float()), dim=1)
        teacher = F.normalize(self.teacher_head(batch.teacher.embedding.detach().float()), dim=1)
        scale = self.tau.exp().clamp(max=self.config.max_scale)
        student_scores, teacher_scores = similarities(student, teacher, scale, self.bias)
        target = teacher_scores.detach() if self.config.stop_gradient else teacher_scores
        return {
            "contrast": info_nce(student_scores, rank_offset(student)),
            "consistency": consistency_loss(student_scores, target),
        }
