"""KD: soft targets (Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2).

Official code followed: HobbitLong/RepDistiller, distiller_zoo/KD.py, and its weights (0.1 cross-entropy,
0.9 KD, T = 4). `standardize` takes each row's z-score of both nets' logits first (Sun et al., CVPR 2024,
arXiv:2403.01427; sunshangquan/logit-standardization-KD, which then runs T = 2 and a weight of 9).
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths.logits import prepare_logits, soft_divergence
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Range


class Weights(_base.Weights):
    """The weight of each term."""

    task: Annotated[Weight, Range(0.05, 2, log=True)] = 0.1
    kd: Annotated[Weight, Range(0.1, 20, log=True)] = 0.9


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["kd"] = "kd"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    standardize: Standardize = False
    weights: Weights = Weights()


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the batch. Logits [n, c] -> scalar."""
    return soft_divergence(student, teacher, temperature).mean()


class Method(_base.Method):
    """Compares softened logits."""

    config: Config
    needs = frozenset({"logits"})
    status = "official"
    paper = "Distilling the Knowledge in a Neural Network, arXiv:1503.02531"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: kd."""
        student, teacher = prepare_logits(batch.student.logits, batch.teacher.logits, self.config.standardize)
        return {"kd": kd_loss(student, teacher, self.config.temperature)}
