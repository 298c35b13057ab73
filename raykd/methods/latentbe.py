"""LatentBE: a batch ensemble that learns from several teachers (Nam et al., ICML 2022, arXiv:2206.15047).

The student's layers share their weights but for rank-one factors of each member; member k learns from teacher
k. What is deployed is one plain net, with the members' mean factors in its weights.

    kd  mean over members k of T^2 KL(softmax(t_k / T) || softmax(z_k / T)), a constant away from the paper's
        soft cross-entropy

Official code followed: cs-giung/distill-latentbe, (1 - a) CE + a KD with a = 1 and T = 4: `task`, here the
sum of the members' cross-entropies, weighs 0. `perturbation` (TDiv-SDiv, raykd/training/perturbation.py)
first moves the images to where teachers disagree, and members do not: the paper's headline, and the default;
0 leaves them as they are, and lets teachers answer from caches, which moved images cannot have.
Members share batch norms, whose running statistics are of all of them. Of rotated views all are compared.
`standardize` takes each row's z-score of both nets' logits first (arXiv:2403.01427).
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths.logits import prepare_logits, soft_divergence
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Range


class Weights(_base.Weights):
    """The weight of each term."""

    task: Annotated[Weight, Range(0, 0.5)] = 0.0
    kd: Annotated[Weight, Range(0.1, 20, log=True)] = 1.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["latentbe"] = "latentbe"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    standardize: Standardize = False
    # root mean square of what the numbers of an image are moved by, in 255ths
    perturbation: Annotated[float, Field(ge=0), Range(0, 2)] = 1.0
    weights: Weights = Weights()

    @property
    def image_step(self) -> float:
        """The perturbation."""
        return self.perturbation


class Method(_base.Method):
    """Pulls each member to its own teacher."""

    config: Config
    needs = frozenset({"logits", "each_logits"})
    student_needs = frozenset({"logits"})
    students = "members"
    status = "official"
    paper = (
        "Improving Ensemble Distillation With Weight Averaging and Diversifying Perturbation, ICML 2022, "
        "arXiv:2206.15047"
    )

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: kd."""
        members = torch.stack([outputs.logits for outputs in batch.students])
        teachers = torch.stack(batch.teacher.each_logits)
        logits = prepare_logits(members, teachers, self.config.standardize)
        return {"kd": soft_divergence(*logits, self.config.temperature).mean()}
