"""DIST: distillation from a stronger teacher (Huang et al., NeurIPS 2022, arXiv:2205.10536).

    inter = T^2 (1 - mean over rows of Pearson's correlation of p_s and p_t over classes)
    intra = T^2 (1 - mean over classes of the correlation over all ranks' rows),  p = softmax(z / T)

Official code followed: hunto/image_classification_sota, lib/models/losses/dist_kd.py, and its weights (2
and 2; T = 4 on CIFAR-100, 1 on ImageNet). `standardize` takes each row's z-score of both nets' logits
first (arXiv:2403.01427).
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.linalg import vector_norm

from raykd.batch import MethodBatch
from raykd.maths.gather import all_gather
from raykd.maths.logits import prepare_logits
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Range

EPSILON = 1e-8  # as released


class Weights(_base.Weights):
    """The weight of each term."""

    inter: Annotated[Weight, Range(0.2, 20, log=True)] = 2.0
    intra: Annotated[Weight, Range(0.2, 20, log=True)] = 2.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["dist"] = "dist"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    standardize: Standardize = False
    weights: Weights = Weights()


def correlations(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each pair of rows. [n, c], [n, c] -> [n]."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    norms: Tensor = vector_norm(a, dim=1) * vector_norm(b, dim=1)
    return (a * b).sum(dim=1) / (norms + EPSILON)


def inter_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Over the classes of each row. Logits [n, c], [n, c] -> scalar."""
    p_student, p_teacher = ((z / temperature).softmax(dim=1) for z in (student, teacher))
    return temperature**2 * (1 - correlations(p_student, p_teacher).mean())


def intra_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Over all ranks' rows of each class. Logits [n, c], [n, c] -> scalar."""
    p_student, p_teacher = (all_gather((z / temperature).softmax(dim=1)) for z in (student, teacher))
    return temperature**2 * (1 - correlations(p_student.T, p_teacher.T).mean())


class Method(_base.Method):
    """Correlates the two nets' probabilities along rows and along classes."""

    config: Config
    needs = frozenset({"logits"})
    compares_classes = True
    status = "official"
    paper = "Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv:2205.10536"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: inter, intra."""
        student, teacher = prepare_logits(batch.student.logits, batch.teacher.logits, self.config.standardize)
        temperature = self.config.temperature
        return {
            "inter": inter_loss(student, teacher, temperature),
            "intra": intra_loss(student, teacher, temperature),
        }
