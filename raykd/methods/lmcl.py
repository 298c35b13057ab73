"""L-MCL: layer-wise mutual contrastive learning (Yang et al., TPAMI 2023, arXiv:2207.11518). No teacher.

Students teach one another as in MCL (mcl.py, with its C, S_ij and KL_T), not only by their embeddings: each
has exits after its inner stages, which repeat the stages that remain. With a, b features of different
students (exits or the net itself), a learning in KL_T's second argument:

    exits       sum of the exits' cross-entropies
    aggregated  sum over students of the cross-entropy of the aggregated logits, sum_k w_k z_k,
                w = softmax(two layers of the student's features side by side)
    kd          sum over ordered pairs i, j, also i = j, of KL_T(aggregated_j || z_i), z_i the net's logits
    vcl         2 sum_a (features of others) C(S_aa)
    soft_vcl    2 sum_{a, b} KL_T(S_bb || S_aa)
    icl         2 sum_{a, b} C(S_ab)
    soft_icl    2 sum_{a, b} KL_T(S_ba || S_ab)

Official code followed: winycg/L-MCL, losses/cifar_sup_layer_mcl_meta_loss.py (it goes through ordered pairs
of students and takes both directions of each, hence 2), models/aggregator.py, models/lmcl_wrn_cifar.py,
main_layer_mcl_cifar_meta.py. Left out: its weight of each anchor of a pair of layers, the sigmoid of a learnt
cosine. What moves it is a bilevel step every 50 batches, a gradient through a step of all students' weights,
which no loss of one batch is; learnt from the loss that they weigh, weights would only fall to 0. Here all
are 1, and the terms' own are searched. The students are `student/copies` and `peers`; the first one is
deployed, without exits. Batches are MCL's: `optimizer/images_per_class: 2`. The exits' batch norms are over
all ranks' rows. Of rotated views only the upright ones count.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext, Outputs
from raykd.maths.logits import soft_divergence
from raykd.maths.mutual import Projection, find_pairs, mutual_terms
from raykd.maths.norm import convert_sync_batchnorm
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    exits: Annotated[Weight, Range(0.1, 3, log=True)] = 1.0
    aggregated: Annotated[Weight, Range(0.1, 3, log=True)] = 1.0
    kd: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0
    vcl: Annotated[Weight, Range(0.01, 1, log=True)] = 0.1
    soft_vcl: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0
    icl: Annotated[Weight, Range(0.01, 1, log=True)] = 0.1
    soft_icl: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["lmcl"] = "lmcl"
    dim: Annotated[int, Field(gt=0), Choice((64, 128, 256))] = 128
    temperature: Annotated[float, Field(gt=0), Range(0.05, 0.2, log=True)] = 0.1
    kl_temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 3.0
    weights: Weights = Weights()


class StudentWithExits(nn.Module):
    """The exits of one student, what mixes their logits, and the projection of each feature."""

    def __init__(self, config: Config, context: MethodContext, student: int) -> None:
        super().__init__()
        shapes = context.students[student]
        if len(shapes.maps) < 3:
            raise ValueError(
                f"lmcl needs students of at least 3 maps, but student {student + 1} has {len(shapes.maps)}"
            )
        firsts = range(2, len(shapes.maps))  # an exit reads the map of the stage before
        self.exits = nn.ModuleList(convert_sync_batchnorm(context.make_branch(student, k)) for k in firsts)
        count, width = len(self.exits) + 1, shapes.embedding
        self.mix = nn.Sequential(nn.Linear(count * width, width), nn.ReLU(), nn.Linear(width, count))
        self.projections = nn.ModuleList(Projection(width, config.dim) for _ in range(count))

    def forward(self, outputs: Outputs, upright: slice) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Returns the logits [n, c] and unit features [n, dim] of exits and net, and aggregated logits."""
        maps = outputs.maps[1:-1]
        exits: list[Outputs] = [run(x[upright]) for run, x in zip(self.exits, maps, strict=True)]
        logits = [*(out.logits.float() for out in exits), outputs.logits[upright].float()]
        embeddings = [*(out.embedding.float() for out in exits), outputs.embedding[upright].float()]
        shares = self.mix(torch.cat(embeddings, dim=1)).softmax(dim=1)  # [n, exits + 1]
        aggregated = (torch.stack(logits, dim=1) * shares[:, :, None]).sum(dim=1)
        features = [project(x) for project, x in zip(self.projections, embeddings, strict=True)]
        return logits, features, aggregated


class Method(_base.Method):
    """Contrasts the features of all exits of all students."""

    config: Config
    needs = frozenset()
    student_needs = frozenset({"logits", "embedding", "maps"})
    students = "peers"
    status = "official"
    paper = "Online Knowledge Distillation via Mutual Contrastive Learning, TPAMI 2023, arXiv:2207.11518"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        students = range(len(context.students))
        self.with_exits = nn.ModuleList(StudentWithExits(config, context, k) for k in students)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: exits, aggregated, kd, vcl, soft_vcl, icl, soft_icl."""
        upright, config = batch.upright, self.config
        labels = batch.labels[upright]
        runs = [run(outputs, upright) for run, outputs in zip(self.with_exits, batch.students, strict=True)]
        logits, features, aggregated = (list(parts) for parts in zip(*runs, strict=True))
        exits = [z for own in logits for z in own[:-1]]
        targets = torch.stack(aggregated).detach()  # [students, n, c]
        kd = [soft_divergence(own[-1].expand_as(targets), targets, config.kl_temperature) for own in logits]
        terms = mutual_terms(features, find_pairs(labels), config.temperature, config.kl_temperature)
        counts = [len(own) for own in features]
        partners = [sum(counts) - count for count in counts for _ in range(count)]
        return {
            "exits": _sum_cross_entropies(exits, labels),
            "aggregated": _sum_cross_entropies(aggregated, labels),
            "kd": torch.stack(kd).mean(dim=2).sum(),
            "vcl": torch.stack([2 * count * c for count, c in zip(partners, terms.vcl, strict=True)]).sum(),
            "soft_vcl": 2 * terms.soft_vcl,
            "icl": 2 * terms.icl,
            "soft_icl": 2 * terms.soft_icl,
        }


def _sum_cross_entropies(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Of several logits [n, c], each the mean over images."""
    both = torch.cat(list(logits)), labels.repeat(len(logits))
    return F.cross_entropy(*both) * len(logits)
