"""MCL: mutual contrastive learning (Yang et al., AAAI 2022, arXiv:2104.12565). Students teach one another.

With S_ij = v_i v_j^T / temperature, v_i unit vectors of student i behind two layers of its own, C the
supervised contrast (positives: the other images of an anchor's class) and KL_T = T^2 KL of soft-maxes, of
which the second argument learns:

    vcl       sum_i C(S_ii)                     contrast within each student
    soft_vcl  sum_{i != j} KL_T(S_jj || S_ii)   of similarities within
    icl       sum_{i != j} C(S_ij)              contrast across students
    soft_icl  sum_{i != j} KL_T(S_ji || S_ij)   of similarities across
    ensemble  KL_T(mean of all logits || z) of both of two students, of the deployed one of more

No teacher: the students are `student/copies` and `peers` of the recipe; "task" is the sum of their
cross-entropies, and the first one is deployed. Official code followed: winycg/MCL,
losses/cifar_sup_mcl_loss.py, main_cifar.py (runs recorded there have a temperature of 0.07). Its batches hold
two images each of 64 classes, drawn with repeats: here `optimizer/images_per_class: 2`, where an epoch shows
no image twice and a batch may hold more of a class; an anchor without positives counts as 0. It deploys the
student that is best on the test set. Of rotated views only the upright ones count.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.logits import soft_divergence
from raykd.maths.mutual import Projection, find_pairs, mutual_terms
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    vcl: Annotated[Weight, Range(0.01, 1, log=True)] = 0.1
    soft_vcl: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0
    icl: Annotated[Weight, Range(0.01, 1, log=True)] = 0.1
    soft_icl: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0
    ensemble: Annotated[Weight, Choice((0.0, 1.0))] = 0.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["mcl"] = "mcl"
    dim: Annotated[int, Field(gt=0), Choice((64, 128, 256))] = 128
    temperature: Annotated[float, Field(gt=0), Range(0.05, 0.2, log=True)] = 0.1
    kl_temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 3.0
    weights: Weights = Weights()


class Method(_base.Method):
    """Contrasts the students' embeddings within each and across."""

    config: Config
    needs = frozenset()
    student_needs = frozenset({"logits", "embedding"})
    students = "peers"
    status = "official"
    paper = "Mutual Contrastive Learning for Visual Representation Learning, AAAI 2022, arXiv:2104.12565"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        widths = [shapes.embedding for shapes in context.students]
        self.heads = nn.ModuleList(Projection(width, config.dim) for width in widths)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: vcl, soft_vcl, icl, soft_icl, ensemble."""
        upright, config = batch.upright, self.config
        features = [
            [head(outputs.embedding[upright])]
            for head, outputs in zip(self.heads, batch.students, strict=True)
        ]
        terms = mutual_terms(
            features, find_pairs(batch.labels[upright]), config.temperature, config.kl_temperature
        )
        logits = [outputs.logits[upright].float() for outputs in batch.students]
        mean = torch.stack(logits).mean(dim=0).detach()
        learning = logits if len(logits) == 2 else logits[:1]
        ensemble = [soft_divergence(z, mean, config.kl_temperature).mean() for z in learning]
        return terms._asdict() | {"vcl": terms.vcl.sum(), "ensemble": torch.stack(ensemble).sum()}
