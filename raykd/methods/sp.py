"""SP: similarity-preserving distillation (Tung and Mori, ICCV 2019, arXiv:1907.09682).

    similarity = |G_t - G_s|_F^2 / m^2,  G = rows of F F^T divided by their norms,  F the flattened last map

Official code followed: HobbitLong/RepDistiller, distiller_zoo/SP.py, and its weight (3000). m is the
number of rows on all ranks.
"""

from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths.gather import all_gather
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Range


class Weights(_base.Weights):
    """The weight of each term."""

    similarity: Annotated[Weight, Range(300, 30000, log=True)] = 3000.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["sp"] = "sp"
    weights: Weights = Weights()


def similarities(features: Tensor) -> Tensor:
    """Inner products of this rank's rows with all ranks', each row a unit vector. [n, ...] -> [n, m]."""
    flat = features.flatten(1)
    return F.normalize(flat @ all_gather(flat).T, dim=1)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the nets' similarities. [n, ...], [n, ...] -> scalar."""
    return F.mse_loss(similarities(student), similarities(teacher))


class Method(_base.Method):
    """Compares the similarities within the batch of the two nets' last maps."""

    needs = frozenset({"maps"})
    status = "official"
    paper = "Similarity-Preserving Knowledge Distillation, ICCV 2019, arXiv:1907.09682"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: similarity."""
        student, teacher = batch.student.maps[-1].float(), batch.teacher.maps[-1].detach().float()
        return {"similarity": similarity_loss(student, teacher)}
