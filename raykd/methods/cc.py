"""CC: correlation congruence (Peng et al., ICCV 2019, arXiv:1904.01802).

    correlation = mean over neighbours i, i + 1 of the batch of sum |d_i| |d_(i+1)|,  d = A f_s - B f_t

Official code followed: HobbitLong/RepDistiller, distiller_zoo/CC.py, models/util.py (LinearEmbed; 128
wide, not normalised, the teacher's learns too) and its weight (0.02). This is the code that the paper's
author sent to RepDistiller; the paper was not read. Neighbours are those of the global batch.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.gather import all_gather
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    correlation: Annotated[Weight, Range(0.002, 0.2, log=True)] = 0.02


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["cc"] = "cc"
    dim: Annotated[int, Field(gt=0), Choice((64, 128, 256))] = 128
    weights: Weights = Weights()


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Products of neighbours' absolute differences, mean over all ranks' pairs. [n, d], [n, d] -> scalar."""
    difference = all_gather((student - teacher).abs())
    return (difference[:-1] * difference[1:]).sum(dim=1).mean()


class Method(_base.Method):
    """Compares neighbours' differences behind two linear heads."""

    needs = frozenset({"embedding"})
    status = "official"
    paper = "Correlation Congruence for Knowledge Distillation, ICCV 2019, arXiv:1904.01802"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        self.student_head = nn.Linear(context.student.embedding, config.dim)
        self.teacher_head = nn.Linear(context.teacher.embedding, config.dim)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: correlation."""
        student = self.student_head(batch.student.embedding.float())
        teacher = self.teacher_head(batch.teacher.embedding.detach().float())
        return {"correlation": correlation_loss(student, teacher)}
