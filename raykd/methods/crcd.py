"""CRCD: complementary relation contrastive distillation (Zhu et al., CVPR 2021, arXiv:2103.16367).

This is a reconstruction in so far as the code that was read, Lechatelia/CRCD, calls itself incomplete, not
checked and not the official implementation (which rests on a company's library). The paper's method section
was not read.

    contrast  CRD's NCE of relations r(s_a, m_b) against r(m_a, m_b) and negatives r(m_k, m_b), and mirrored
    gradient  the same of the gradients of each net's cross-entropy with respect to its embedding
    kd        KD of the logits

where r(x, m) = (x - m) / |x - m|, s_a is the student's projection of image a, m rows of the bank of the
teacher's, and b all images of the global batch. Read: all of `contrast`, its two heads, banks of unit rows,
their update and Z (crcd/criterion.py, crcd/memory.py); the weights; that the three end at 240 of 250 epochs
(helper/loops.py:211). The gradient is (softmax - one-hot) W / B, with gradients into the student's logits
and head. The release contrasts gradients with heads and banks of their own if `grad_kd_type` is "crcd"; its
example takes instead 10 (1 - cosine), and multiplies KD by the result, which is not followed.
`sampling` is CRD's: "shared" is one draw of negatives for all images of a batch. A weight of 0 for `gradient`
leaves out its heads, its two banks and half of the time. Of rotated views only the upright ones are
contrasted.
"""

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext, Outputs
from raykd.maths.bank import Sampling
from raykd.maths.gather import num_ranks
from raykd.maths.logits import soft_divergence
from raykd.maths.relation import RelationBank
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    contrast: Annotated[Weight, Range(0.1, 5, log=True)] = 1.0
    gradient: Annotated[Weight, Choice((0.0, 1.0))] = 1.0
    kd: Annotated[Weight, Range(0.1, 20, log=True)] = 0.9


class Config(_base.MethodConfig):
    """The settings; the defaults are those of the code that was read."""

    name: Literal["crcd"] = "crcd"
    dim: Annotated[int, Field(gt=0), Choice((64, 128, 256))] = 128
    negatives: Annotated[int, Field(gt=0), Choice((125, 500, 2000))] = 500
    temperature: Annotated[float, Field(gt=0), Range(0.02, 0.2, log=True)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1), Range(0, 0.9)] = 0.5
    kd_temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    until: Annotated[float, Field(gt=0, le=1), Range(0.8, 1)] = 240 / 250  # the terms are 0 after it
    sampling: Sampling = "shared"
    weights: Weights = Weights()


def embedding_gradient(logits: Tensor, labels: Tensor, weight: Tensor, batch_size: int) -> Tensor:
    """The gradient of the batch's mean cross-entropy with respect to the embedding.

    Logits [n, c], labels [n], the head's weight [c, d] -> [n, d]; it is differentiable itself.
    """
    is_label = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    return (logits.softmax(dim=1) - is_label.float()) @ weight / batch_size


class Contrast(nn.Module):
    """Two heads and their banks. Features of both nets [n, width] -> scalar."""

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__()
        self.student_head = nn.Linear(context.student.embedding, config.dim)
        self.teacher_head = nn.Linear(context.teacher.embedding, config.dim)
        options = config.dim, config.negatives, config.sampling, config.temperature, config.momentum
        self.bank = RelationBank(context.labels, *options)

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor, rows: Tensor) -> Tensor:
        """Returns the loss for images at index [n] and drawn rows of the banks, and updates these."""
        student, teacher = self.student_head(student), self.teacher_head(teacher.detach())
        loss: Tensor = self.bank(F.normalize(student, dim=1), F.normalize(teacher, dim=1), index, rows)
        return loss


class Method(_base.Method):
    """Contrasts relations of embeddings, and of their gradients; the banks are part of the state."""

    config: Config
    needs = frozenset({"logits", "embedding", "head"})
    status = "reconstruction"
    paper = "Complementary Relation Contrastive Distillation, CVPR 2021, arXiv:2103.16367"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        self.feature = Contrast(config, context)
        self.gradient = Contrast(config, context) if config.weights.gradient > 0 else None

    def prepare(self, index: Tensor, rotations: int) -> tuple[Tensor, ...]:
        """Draws the negatives of embeddings, and those of gradients."""
        contrasts = (self.feature,) if self.gradient is None else (self.feature, self.gradient)
        return tuple(contrast.bank.memory.draw(index[::rotations]) for contrast in contrasts)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: contrast, gradient, kd."""
        upright = batch.upright
        labels, index, rows = batch.labels[upright], batch.index[upright], self.get_prepared(batch)
        student, teacher = _get_rows(batch.student, upright), _get_rows(batch.teacher, upright)
        gradient = labels.new_zeros((), dtype=torch.float32)
        if self.gradient is not None:
            size = num_ranks() * len(labels)
            gradients = (embedding_gradient(x.logits, labels, x.weight, size) for x in (student, teacher))
            gradient = self.gradient(*gradients, index, rows[1])
        terms = {
            "contrast": self.feature(student.embedding, teacher.embedding, index, rows[0]),
            "gradient": gradient,
            "kd": soft_divergence(student.logits, teacher.logits.detach(), self.config.kd_temperature).mean(),
        }
        return {name: (batch.progress < self.config.until) * term for name, term in terms.items()}


class _Rows(NamedTuple):
    """What is read of a net, in float32."""

    logits: Tensor  # [n, c]
    embedding: Tensor  # [n, d]
    weight: Tensor  # [c, d], the head's


def _get_rows(outputs: Outputs, rows: slice) -> _Rows:
    return _Rows(outputs.logits[rows].float(), outputs.embedding[rows].float(), outputs.head.weight.float())
