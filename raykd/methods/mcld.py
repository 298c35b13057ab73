"""MCLD: multi-perspective contrastive logit distillation (Wang and Zhou, arXiv:2411.10693).

This is a reconstruction: there is no public code and the paper's method section was not read, only its
abstracts. s, t are logits, rows normalised; M_ij = 1 where labels i and j agree; c_k, d_k are the columns
of class k of student and teacher over the global batch, normalised.

    instance  mean_i -log e(s_i t_i) / (e(s_i t_i) + sum over M_ij = 0 of e(s_i t_j))
    sample    mean_i -mean over M_ip = 1 of log e(s_i t_p) / sum_j e(s_i t_j)
    category  mean_k -log e(c_k d_k) / sum_m e(c_k d_m), times min(progress / warm_up, 1)

with e(x) = exp(x / temperature). Read: three terms on logits alone, 1-to-N contrasts, a target mask, a
warm-up of the category term (abstracts). Reconstructed: that each is an InfoNCE of cosines, and all else.
Left open by the abstracts and so fields: mask_same_class (the target mask in `instance`; off is the loss
of CKD), sample ("student_anchor" as above; "teacher_anchor", t_i over all s_j; "similarity", KL of
softmax(t_i t_j) and softmax(s_i s_j) over j != i), classes ("present" leaves classes without an image in
the batch out of `category`). Weights of 10 are those of ZhouXinzzzzz/CKD, where cosines at temperature 1
have small gradients; 20 of 240 epochs is mdistiller's warm-up.
`standardize` takes each row's z-score of both nets' logits first (arXiv:2403.01427).
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths import ramp
from raykd.maths.contrast import info_nce
from raykd.maths.gather import all_gather, rank_offset
from raykd.maths.logits import prepare_logits
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Choice, Range

Sample = Literal["student_anchor", "teacher_anchor", "similarity"]


class Weights(_base.Weights):
    """The weight of each term."""

    instance: Annotated[Weight, Range(0.1, 100, log=True)] = 10.0
    sample: Annotated[Weight, Range(0.1, 100, log=True)] = 10.0
    category: Annotated[Weight, Range(0.1, 100, log=True)] = 10.0


class Config(_base.MethodConfig):
    """The settings; what the defaults rest on is said at the file's head."""

    name: Literal["mcld"] = "mcld"
    temperature: Annotated[float, Field(gt=0), Range(0.07, 2, log=True)] = 1.0
    mask_same_class: Annotated[bool, Choice((True, False))] = True
    sample: Annotated[Sample, Choice(("student_anchor", "teacher_anchor", "similarity"))] = "student_anchor"
    classes: Annotated[Literal["all", "present"], Choice(("all", "present"))] = "all"
    standardize: Standardize = False
    warm_up: Annotated[float, Field(ge=0, le=1), Range(0, 0.25)] = 20 / 240
    weights: Weights = Weights()


def instance_loss(scores: Tensor, same: Tensor, first: int, mask_same_class: bool) -> Tensor:
    """InfoNCE, key first + i being the positive of row i. Scores, same class [n, m] -> scalar.

    Scores are cosines over the temperature. With the mask, other keys of the row's class are left out.
    """
    if mask_same_class:
        positive = torch.arange(first, first + len(scores), device=scores.device)
        other = torch.arange(scores.shape[1], device=scores.device) != positive[:, None]
        scores = scores.masked_fill(same & other, -math.inf)
    return info_nce(scores, first)


def multi_positive_loss(scores: Tensor, same: Tensor) -> Tensor:
    """-mean over keys of the row's class of log softmax(scores), mean over rows. [n, m], [n, m] -> scalar."""
    log = F.log_softmax(scores, dim=1)
    return -((log * same).sum(dim=1) / same.sum(dim=1)).mean()


def similarity_loss(student: Tensor, teacher: Tensor, first: int) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) over the other keys, mean over rows. [n, m], [n, m] -> scalar.

    Scores of each net's rows with its own keys; key first + i is row i itself and is left out.
    """
    rows, keys = student.shape
    others = torch.arange(keys - 1, device=student.device).expand(rows, -1)
    row_key = torch.arange(first, first + rows, device=student.device)[:, None]
    others = others + (others >= row_key)
    log_student, log_teacher = (F.log_softmax(x.gather(1, others), dim=1) for x in (student, teacher))
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def category_loss(student: Tensor, teacher: Tensor, temperature: float, used: Tensor) -> Tensor:
    """InfoNCE among the columns of the classes in use. Logits [m, c] x 2, used [c] of bool -> scalar."""
    columns, keys = F.normalize(student, dim=0).T, F.normalize(teacher, dim=0).T
    log = F.log_softmax((columns @ keys.T / temperature).masked_fill(~used, -math.inf), dim=1)
    return -log.diagonal().where(used, 0).sum() / used.sum()


class Method(_base.Method):
    """Contrasts logits by instance, by sample and by category."""

    config: Config
    needs = frozenset({"logits"})
    compares_classes = True
    status = "reconstruction"
    paper = "Multi-perspective Contrastive Logit Distillation, arXiv:2411.10693"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: instance, sample, category."""
        student, teacher = prepare_logits(batch.student.logits, batch.teacher.logits, self.config.standardize)
        all_student, all_teacher, labels = all_gather(student), all_gather(teacher), all_gather(batch.labels)
        same, first = batch.labels[:, None] == labels, rank_offset(student)
        scores = self._cosines(student, all_teacher)
        warm_up_scale = ramp.linear(batch.progress, self.config.warm_up)
        used = torch.ones(student.shape[1], dtype=torch.bool, device=student.device)
        if self.config.classes == "present":
            used = torch.zeros_like(used).index_fill(0, labels, True)
        category = category_loss(all_student, all_teacher, self.config.temperature, used)
        return {
            "instance": instance_loss(scores, same, first, self.config.mask_same_class),
            "sample": self._sample_loss(student, teacher, all_student, all_teacher, same, first),
            "category": warm_up_scale * category,
        }

    def _cosines(self, rows: Tensor, keys: Tensor) -> Tensor:
        return F.normalize(rows, dim=1) @ F.normalize(keys, dim=1).T / self.config.temperature

    def _sample_loss(
        self, student: Tensor, teacher: Tensor, students: Tensor, teachers: Tensor, same: Tensor, first: int
    ) -> Tensor:
        if self.config.sample == "similarity":
            return similarity_loss(self._cosines(student, students), self._cosines(teacher, teachers), first)
        if self.config.sample == "teacher_anchor":
            return multi_positive_loss(self._cosines(teacher, students), same)
        return multi_positive_loss(self._cosines(student, teachers), same)
