"""RKD: relational knowledge distillation (Park et al., CVPR 2019, arXiv:1904.05068).

    distance: smooth L1 between the pairwise distances, each net's divided by their mean
    angle:    smooth L1 between the cosines of all triplets

Official code followed: HobbitLong/RepDistiller, distiller_zoo/RKD.py, and its weights (25 and 50). The
angles of n rows among m (all ranks') take n * m * m numbers.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths.gather import all_gather, rank_offset
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Range

EPSILON = 1e-12  # as released, under the square root


class Weights(_base.Weights):
    """The weight of each term."""

    distance: Annotated[Weight, Range(2.5, 250, log=True)] = 25.0
    angle: Annotated[Weight, Range(5, 500, log=True)] = 50.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["rkd"] = "rkd"
    weights: Weights = Weights()


def distances(features: Tensor) -> Tensor:
    """Returns distances from this rank's rows to all ranks', over the mean of all. [n, d] -> [n, m]."""
    rows, first = all_gather(features), rank_offset(features)
    square = rows.square().sum(dim=1)
    between = (square[:, None] + square - 2 * rows @ rows.T).clamp(min=EPSILON).sqrt()
    between = between * (1 - torch.eye(len(rows), dtype=between.dtype, device=between.device))
    mean = between.sum() / (len(rows) * (len(rows) - 1))
    return between[first : first + len(features)] / mean


def angles(features: Tensor) -> Tensor:
    """Returns, at row i, the cosine of the directions to all ranks' rows j and k. [n, d] -> [n, m, m]."""
    toward = F.normalize(all_gather(features)[None] - features[:, None], dim=2)
    return toward @ toward.transpose(1, 2)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns RKD-D, the smooth L1 difference of the nets' distances. [n, d], [n, e] -> scalar."""
    return F.smooth_l1_loss(distances(student), distances(teacher))


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns RKD-A, the smooth L1 difference of the nets' angles. [n, d], [n, e] -> scalar."""
    return F.smooth_l1_loss(angles(student), angles(teacher))


class Method(_base.Method):
    """Compares distances and angles between the rows of the batch."""

    needs = frozenset({"embedding"})
    status = "official"
    paper = "Relational Knowledge Distillation, CVPR 2019, arXiv:1904.05068"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: distance, angle."""
        student, teacher = batch.student.embedding.float(), batch.teacher.embedding.detach().float()
        return {"distance": distance_loss(student, teacher), "angle": angle_loss(student, teacher)}
