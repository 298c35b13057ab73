"""DML: deep mutual learning (Zhang et al., CVPR 2018, arXiv:1706.00384). Students teach one another.

    mutual   sum over students of the mean over the others j of T^2 KL(softmax(z_j / T) || softmax(z_i / T))

z_j is without gradient. The students are `student/copies` and `peers` of the recipe; "task" is the sum of
their cross-entropies, and the first one is deployed. Official code followed: train_models.py of
YingZhangDUT/Deep-Mutual-Learning (TensorFlow, T = 1), which has two nets; the mean over several others is
that of winycg/MCL-OKD, main_cifar_dml.py, whose T is 2. All students take a step at once, as in that file;
the authors' code updates them in turn. Of rotated views only the upright ones are compared.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths.logits import soft_divergence
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Range


class Weights(_base.Weights):
    """The weight of each term."""

    mutual: Annotated[Weight, Range(0.1, 5, log=True)] = 1.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["dml"] = "dml"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 1.0
    weights: Weights = Weights()


class Method(_base.Method):
    """Pulls each student's predictions to those of the others."""

    config: Config
    needs = frozenset()
    student_needs = frozenset({"logits"})
    students = "peers"
    status = "official"
    paper = "Deep Mutual Learning, CVPR 2018, arXiv:1706.00384"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: mutual."""
        logits = [outputs.logits[batch.upright].float() for outputs in batch.students]
        divergences = [
            soft_divergence(logits[i], logits[j].detach(), self.config.temperature).mean()
            for i in range(len(logits))
            for j in range(len(logits))
            if i != j
        ]
        return {"mutual": torch.stack(divergences).sum() / (len(logits) - 1)}
