"""DKD: decoupled knowledge distillation (Zhao et al., CVPR 2022, arXiv:2203.08679, Eqs. 5-7).

Official code followed: megvii-research/mdistiller, mdistiller/distillers/DKD.py. There the target class
is taken out of the second soft-max by a logit of -1000; here its column is left out, which is the same
number. The warm-up counts parts of the trial (20 of the paper's 240 epochs), and starts at 0 where the
released one, counting epochs from 1, starts at 1/20. `standardize` takes each row's z-score of both nets'
logits first (arXiv:2403.01427).
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths import ramp
from raykd.maths.logits import non_target_divergence, prepare_logits, target_divergence
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Range


class Weights(_base.Weights):
    """The weight of each term."""

    target: Weight = 1.0  # alpha, 1 in every released setting
    non_target: Annotated[Weight, Range(0.5, 16, log=True)] = 8.0  # beta


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["dkd"] = "dkd"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    warm_up: Annotated[float, Field(ge=0, le=1), Range(0, 0.25)] = 20 / 240
    standardize: Standardize = False
    weights: Weights = Weights()


def target_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """TCKD, T^2 KL of (target, all others), mean over the batch. Logits [n, c], labels [n] -> scalar."""
    return target_divergence(student, teacher, labels, temperature).mean()


def non_target_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """NCKD, T^2 KL among the other classes, mean over the batch. Logits [n, c], labels [n] -> scalar."""
    return non_target_divergence(student, teacher, labels, temperature).mean()


class Method(_base.Method):
    """Compares logits, the target class and the others apart, with a warm-up."""

    config: Config
    needs = frozenset({"logits"})
    status = "official"
    paper = "Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: target, non_target."""
        student, teacher = prepare_logits(batch.student.logits, batch.teacher.logits, self.config.standardize)
        warm_up_scale = ramp.linear(batch.progress, self.config.warm_up)
        temperature = self.config.temperature
        return {
            "target": warm_up_scale * target_loss(student, teacher, batch.labels, temperature),
            "non_target": warm_up_scale * non_target_loss(student, teacher, batch.labels, temperature),
        }
