"""CLKD: class-aware logit distillation (Zhang et al. 2022, arXiv:2211.14773).

This is a reconstruction: no code of the authors was found and the paper's method section was not read, only
its abstract and two versions by others, which agree. Z are the logits of the global batch [n, c].

    instance     mean squared error of the rows of Z, each of length 1
    category     mean squared error of the columns of Z, each of length 1
    correlation  |B_s - B_t| / c^2, B = (Z - zbar)^T (Z - zbar) / (c - 1), |.| the Frobenius norm

zbar is taken as the mean of each row, a guess. Read: distillation by instance and by class, and a class
correlation loss (abstract). Second hand: the three formulas. Unknown, and so to be searched: the weights; 1
each is a mere start.
"""

from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths.gather import all_gather
from raykd.maths.logits import prepare_logits
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Range


class Weights(_base.Weights):
    """The weight of each term."""

    instance: Annotated[Weight, Range(0.1, 1000, log=True)] = 1.0
    category: Annotated[Weight, Range(0.1, 1000, log=True)] = 1.0
    correlation: Annotated[Weight, Range(0.1, 1000, log=True)] = 1.0


class Config(_base.MethodConfig):
    """The settings; what the defaults rest on is said at the file's head."""

    name: Literal["clkd"] = "clkd"
    standardize: Standardize = False
    weights: Weights = Weights()


def unit_loss(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Mean squared error of logits, rows (dim = 1) or columns (0) of length 1. [n, c], [n, c] -> scalar."""
    return F.mse_loss(F.normalize(student, dim=dim), F.normalize(teacher, dim=dim))


def class_correlation(logits: Tensor) -> Tensor:
    """B: inner products of the classes' columns, the mean of each row taken off. [n, c] -> [c, c]."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred.T @ centred / (logits.shape[1] - 1)


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The Frobenius norm of the difference of two nets' B, over c^2. [n, c], [n, c] -> scalar."""
    difference = class_correlation(student) - class_correlation(teacher)
    loss: Tensor = difference.norm() / student.shape[1] ** 2
    return loss


class Method(_base.Method):
    """Compares logits by row, by column and by the correlation of classes, over the global batch."""

    config: Config
    needs = frozenset({"logits"})
    compares_classes = True
    status = "reconstruction"
    paper = "Class-aware Information for Logit-based Knowledge Distillation, arXiv:2211.14773"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: instance, category, correlation."""
        logits = prepare_logits(batch.student.logits, batch.teacher.logits, self.config.standardize)
        student, teacher = (all_gather(x) for x in logits)
        return {
            "instance": unit_loss(student, teacher, dim=1),
            "category": unit_loss(student, teacher, dim=0),
            "correlation": correlation_loss(student, teacher),
        }
