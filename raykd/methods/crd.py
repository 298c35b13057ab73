"""CRD: contrastive representation distillation (Tian et al., ICLR 2020, arXiv:1910.10699, Eqs. 17-18).

Official code followed: HobbitLong/RepDistiller, crd/criterion.py, crd/memory.py, dataset/cifar100.py
(mode "exact"), and its weight (0.8). `sampling = "per_sample"` is as released: every anchor gathers its
own negatives. `sampling = "shared"`, the default, gathers one draw for all anchors, each of which leaves out
those of its own class: the expected loss is the same, and the gathers are one product of matrices.
Negatives are drawn on the device instead of by the data loader. Of rotated views only the upright ones
are contrasted: a bank has one row an image.
"""

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.bank import MemoryBank, Sampling
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    contrast: Annotated[Weight, Range(0.1, 2, log=True)] = 0.8


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["crd"] = "crd"
    dim: Annotated[int, Field(gt=0), Choice((64, 128, 256))] = 128
    negatives: Annotated[int, Field(gt=0), Choice((1024, 4096, 16384))] = 16384
    temperature: Annotated[float, Field(gt=0), Range(0.05, 0.2, log=True)] = 0.07
    momentum: Annotated[float, Field(ge=0, lt=1), Range(0, 0.9)] = 0.5
    sampling: Sampling = "shared"
    weights: Weights = Weights()


class Method(_base.Method):
    """Contrasts both nets' projections with banks of the other's; the banks are part of the state."""

    needs = frozenset({"embedding"})
    status = "official"
    paper = "Contrastive Representation Distillation, ICLR 2020, arXiv:1910.10699"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        self.student_head = nn.Linear(context.student.embedding, config.dim)
        self.teacher_head = nn.Linear(context.teacher.embedding, config.dim)
        self.memory = MemoryBank(
            context.labels, config.dim, config.negatives, config.sampling, config.temperature, config.momentum
        )

    def prepare(self, index: Tensor, rotations: int) -> tuple[Tensor, ...]:
        """Draws the negatives."""
        return (self.memory.draw(index[::rotations]),)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: contrast."""
        upright = batch.upright
        student = F.normalize(self.student_head(batch.student.embedding[upright].float()), dim=1)
        teacher = F.normalize(self.teacher_head(batch.teacher.embedding[upright].detach().float()), dim=1)
        index = batch.index[upright]
        return {"contrast": self.memory(student, teacher, index, *self.get_prepared(batch))}
