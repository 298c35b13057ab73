"""CKD: contrastive distillation of logits, sample by sample (Zhu et al. 2024, arXiv:2404.14109).

    contrast = mean of -log softmax_j(cos(t_i, s_j) / T)[i],  t_i and s_j the logits of rows i and j

Official code followed: ZhouXinzzzzz/CKD, mdistiller/distillers/CKD.py, and its weight for WRN-40-2 ->
WRN-16-2 (100; 10 or 50 for other pairs; T = 1). The keys are the students of all ranks. `standardize`
takes each row's z-score of both nets' logits first (arXiv:2403.01427), which here removes their means:
the cosine ignores scale.
"""

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths.contrast import info_nce
from raykd.maths.gather import all_gather, rank_offset
from raykd.maths.logits import prepare_logits
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Range


class Weights(_base.Weights):
    """The weight of each term."""

    contrast: Annotated[Weight, Range(5, 200, log=True)] = 100.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["ckd"] = "ckd"
    temperature: Annotated[float, Field(gt=0), Range(0.05, 4, log=True)] = 1.0
    standardize: Standardize = False
    weights: Weights = Weights()


def contrast_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """InfoNCE of this rank's teachers over all ranks' students. Logits [n, c], [n, c] -> scalar."""
    keys = all_gather(F.normalize(student, dim=1))
    return info_nce(F.normalize(teacher, dim=1) @ keys.T / temperature, rank_offset(student))


class Method(_base.Method):
    """Contrasts each teacher's row of logits with all students'."""

    config: Config
    needs = frozenset({"logits"})
    status = "official"
    paper = "CKD: Contrastive Knowledge Distillation from A Sample-wise Perspective, arXiv:2404.14109"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: contrast."""
        student, teacher = prepare_logits(batch.student.logits, batch.teacher.logits, self.config.standardize)
        return {"contrast": contrast_loss(student, teacher, self.config.temperature)}
