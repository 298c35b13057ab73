"""Intra-class contrastive training of a teacher (arXiv:2509.22053), whose soft labels then teach by KD.

This is a reconstruction: the abstract was read, and no code was found. No teacher of its own: it is meant for
`teacher: {train: {method: {name: intra_class}}}`. Labels alone push all images of a class to one point; this
keeps them apart, so that soft labels tell more of an image than its class.

    contrast  mean over rows a of what pulls a to p, the other view of its image, and away from the other
              images k of its class in the batch, with similarities s of unit embeddings:
              infonce: log(1 + sum_k exp((s_ak - s_ap + margin) / temperature))
              hinge:   mean over k of max(0, s_ak - s_ap + margin)

Read: an intra-class contrastive loss beside the cross-entropy in the teacher's training; that it makes
training unstable and slow; that a margin mends this. Reconstructed: the two losses, where the margin stands,
embeddings without a head, the weight. An image stands in a batch by two views; the other images of its class
are those of `optimizer/images_per_class` (2 or more). A row without one counts as 0. Of rotated views only
the upright ones count.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.batch import MethodBatch
from raykd.maths.gather import all_gather, rank_offset
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range

FAR = -1e4  # in place of a similarity that does not count


class Weights(_base.Weights):
    """The weight of each term."""

    contrast: Annotated[Weight, Range(0.001, 1, log=True)] = 0.05


class Config(_base.MethodConfig):
    """The settings; the paper's are not known."""

    name: Literal["intra_class"] = "intra_class"
    loss: Annotated[Literal["infonce", "hinge"], Choice(("infonce", "hinge"))] = "infonce"
    temperature: Annotated[float, Field(gt=0), Range(0.05, 1, log=True)] = 0.2
    margin: Annotated[float, Field(ge=0), Range(0, 0.5)] = 0.1
    weights: Weights = Weights()


def intra_class_loss(
    embedding: Tensor, labels: Tensor, index: Tensor, loss: str, temperature: float, margin: float
) -> Tensor:
    """Rows of this rank [n, d], their labels [n] and images [n] -> scalar; keys are all ranks' rows."""
    anchors = F.normalize(embedding, dim=1)
    similarity = anchors @ all_gather(anchors).T
    own = rank_offset(labels) + torch.arange(len(labels), device=labels.device)
    is_self = own[:, None] == torch.arange(similarity.shape[1], device=labels.device)
    is_same_image = index[:, None] == all_gather(index)
    is_positive = is_same_image & ~is_self
    is_negative = (labels[:, None] == all_gather(labels)) & ~is_same_image
    positive = (similarity * is_positive).sum(dim=1) / is_positive.sum(dim=1).clamp(min=1)
    gap = similarity - positive[:, None] + margin
    if loss == "hinge":
        rows = (gap.clamp(min=0) * is_negative).sum(dim=1) / is_negative.sum(dim=1).clamp(min=1)
    else:
        rows = F.softplus((gap / temperature).masked_fill(~is_negative, FAR).logsumexp(dim=1))
    return (rows * is_positive.any(dim=1)).mean()


class Method(_base.Method):
    """Keeps the images of a class apart."""

    config: Config
    needs = frozenset()
    student_needs = frozenset({"embedding"})
    views = 2
    status = "reconstruction"
    paper = "Enriching Knowledge Distillation with Intra-Class Contrastive Learning, arXiv:2509.22053"

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: contrast."""
        upright, config = batch.upright, self.config
        rows = batch.student.embedding[upright].float(), batch.labels[upright], batch.index[upright]
        return {"contrast": intra_class_loss(*rows, config.loss, config.temperature, config.margin)}
