"""MCL-OKD: multi-view contrastive learning for online distillation (Yang et al. 2020, arXiv:2006.04093).

No teacher: the student has branches, which share its first stages and repeat the others with weights of
their own. The student itself is one of them, and is deployed without the others.

    branches  sum of the other branches' cross-entropies
    kd        T^2 KL(softmax(mean z / T) || softmax(z / T)), z the student's logits; the mean has no gradient
    contrast  sum over ordered pairs i, j of CRD's NCE of branch i's embeddings with branch j's memory bank

Official code followed: winycg/MCL-OKD, main_cifar_mcl_okd.py, mcl/criterion.py, mcl/memory.py,
models/mcl_okd_resnet.py; there Z is the mean of each batch anew, for each pair. `first` is the stage with
which branches begin (0 is the stem): 2 for its ResNets, 3 for its VGG. It draws 16384 negatives, but 256 for
ResNets. `sampling` is CRD's: "shared" is one draw for all images of a batch. The branches' batch norms are
over all ranks' rows. Of rotated views only the upright ones reach the branches.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext, Outputs
from raykd.maths.bank import Sampling
from raykd.maths.branch_bank import BranchBanks
from raykd.maths.logits import soft_divergence
from raykd.maths.norm import convert_sync_batchnorm
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    branches: Annotated[Weight, Range(0.1, 3, log=True)] = 1.0
    kd: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0
    contrast: Annotated[Weight, Range(0.005, 0.2, log=True)] = 0.025


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["mcl_okd"] = "mcl_okd"
    branches: Annotated[int, Field(ge=2, le=8), Choice((2, 4))] = 4  # the student among them
    first: Annotated[int, Field(ge=1)] = 2
    temperature: Annotated[float, Field(gt=0), Range(0.05, 0.2, log=True)] = 0.1
    kd_temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 3.0
    dim: Annotated[int, Field(gt=0), Choice((64, 128, 256))] = 128
    negatives: Annotated[int, Field(gt=0), Choice((256, 1024, 4096, 16384))] = 16384
    momentum: Annotated[float, Field(ge=0, lt=1), Range(0, 0.9)] = 0.5
    sampling: Sampling = "shared"
    weights: Weights = Weights()


class Method(_base.Method):
    """Teaches the student by branches that grow on its first stages; their banks are part of the state."""

    config: Config
    needs = frozenset()
    student_needs = frozenset({"logits", "embedding", "maps"})
    status = "official"
    paper = "Multi-view Contrastive Learning for Online Knowledge Distillation, arXiv:2006.04093"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        others = (context.make_branch(0, config.first) for _ in range(config.branches - 1))
        self.branches = nn.ModuleList(convert_sync_batchnorm(branch) for branch in others)
        width = context.student.embedding
        self.heads = nn.ModuleList(nn.Linear(width, config.dim) for _ in range(config.branches))
        self.banks = BranchBanks(
            context.labels,
            config.dim,
            config.branches,
            config.negatives,
            config.sampling,
            config.temperature,
            config.momentum,
        )

    def prepare(self, index: Tensor, rotations: int) -> tuple[Tensor, ...]:
        """Draws the negatives."""
        return (self.banks.draw(index[::rotations]),)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: branches, kd, contrast."""
        upright, student = batch.upright, batch.student
        trunk = student.maps[self.config.first - 1][upright]
        others: list[Outputs] = [branch(trunk) for branch in self.branches]
        logits = [student.logits[upright].float(), *(outputs.logits.float() for outputs in others)]
        embeddings = [student.embedding[upright], *(outputs.embedding for outputs in others)]
        features = [
            F.normalize(head(x.float()), dim=1) for head, x in zip(self.heads, embeddings, strict=True)
        ]
        mean, labels = torch.stack(logits).mean(dim=0).detach(), batch.labels[upright]
        return {
            "branches": torch.stack([F.cross_entropy(z, labels) for z in logits[1:]]).sum(),
            "kd": soft_divergence(logits[0], mean, self.config.kd_temperature).mean(),
            "contrast": self.banks(features, batch.index[upright], *self.get_prepared(batch)),
        }
