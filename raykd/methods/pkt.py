"""PKT: probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018, arXiv:1803.10837).

    affinity = mean of p_t log(p_t / p_s),  p = (1 + cos) / 2 of a row with every row, over its sum

Official code followed: HobbitLong/RepDistiller, distiller_zoo/PKT.py, and its weight (30000).
"""

from typing import Annotated, Literal

import torch
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths.gather import all_gather
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Range

EPSILON = 1e-7  # as released


class Weights(_base.Weights):
    """The weight of each term."""

    affinity: Annotated[Weight, Range(3000, 300000, log=True)] = 30000.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["pkt"] = "pkt"
    weights: Weights = Weights()


def affinities(features: Tensor) -> Tensor:
    """Returns how probable all ranks' rows are as neighbours. [n, d] -> [n, m], rows sum to 1."""
    norm: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    unit = features / (norm + EPSILON)
    closeness = (unit @ all_gather(unit).T + 1) / 2
    return closeness / closeness.sum(dim=1, keepdim=True)


def affinity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of the neighbours' probabilities, mean over pairs. [n, d], [n, e] -> scalar."""
    p_student, p_teacher = affinities(student), affinities(teacher)
    return (p_teacher * torch.log((p_teacher + EPSILON) / (p_student + EPSILON))).mean()


class Method(_base.Method):
    """Compares the two nets' probabilities of being neighbours."""

    needs = frozenset({"embedding"})
    status = "official"
    paper = "Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018, arXiv:1803.10837"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: affinity."""
        student, teacher = batch.student.embedding.float(), batch.teacher.embedding.detach().float()
        return {"affinity": affinity_loss(student, teacher)}
