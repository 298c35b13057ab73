"""PCKD: preview-based category contrastive learning (Ding et al., IEEE TCSVT 2025, arXiv:2410.14143).

Official code followed: MuHeDing/PCKD, helper/losses.py, helper/loops.py, train_student.py; the paper's
printed equations were not read. W, b are a head's weight and bias; u = normalise(A s), v = normalise(E s)
projections of the student's embedding s, t the teacher's.

    kd        mean_i w_i T^2 KL(teacher || student), upright views
    category  mean_i w_i (l(W_s u_i) + l(W_t v_i)), all views; l is the supervised contrastive loss of a row
              among all rows [W_s u; W_t v], raw products over `temperature`, times
              temperature / base_temperature
    centre    mean squared difference of [W_s | b_s] and [W_t | b_t]
    feature   2 - 2 mean cos(q(s), t), all views; q two layers with batch norm
    w_i       preview: 1 where the difficulty, CE_i / mean CE of the batch, is at most a threshold, else less

Read: all terms, growth^epoch with exp(-difficulty^2), the factor 4 / 0.07 = 57 that stays in `category` (a
plain loss takes a weight of 2.9 for 0.05), weights of the published command, in which kd has none.
Read elsewhere: q's body, which was not released, is that of ifding/DLKD, models/mlp_head.py, the evident
parent (its first bias, which batch norm cancels, is left out).
Unlike the code, w carries no gradient in `kd` either, the epoch (of 240) counts parts of the trial and
grows within an epoch, and mean CE is that of all ranks. Preview "curriculum" gives 0 instead of
exp(-difficulty^2); "linear" and "cosine" move the threshold from start to end over the trial.

Class centres of unequal width have no alignment: the code then takes 0 silently; here a weight above 0 is
an error. `standardize` takes z-scores of both nets' logits in `kd` (arXiv:2403.01427). The released data
have four rotated views an image (data/rotations = 4). The file that would flip them, dataset/cifar.py, was
not released; its kin, xuguodong03/SSKD and ifding/DLKD, flip all four views of an image at once with p =
0.5, so flips are on (confidence 0.95).
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.gather import all_gather, rank_offset
from raykd.maths.logits import prepare_logits, soft_divergence
from raykd.maths.norm import AnyDeviceSyncBatchNorm
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Choice, Range, Spec

PAPER_EPOCHS = 240
EPSILON = 1e-7  # as released, in `category`
Threshold = Annotated[float, Field(gt=0)]


class Growth(Spec):
    """Released: growth^epoch; harder images weigh exp(-difficulty^2)."""

    kind: Literal["growth"] = "growth"
    growth: Annotated[float, Field(ge=1), Range(1.0, 1.02)] = 1.005

    def weight(self, difficulty: Tensor, progress: Tensor) -> Tensor:
        """Returns the weight of each image. [n] -> [n]."""
        return preview_weight(difficulty, self.growth ** paper_epoch(progress))


class Curriculum(Spec):
    """The same threshold as a hard gate."""

    kind: Literal["curriculum"] = "curriculum"
    gate_growth: Annotated[float, Field(ge=1), Range(1.0, 1.02)] = 1.005

    def weight(self, difficulty: Tensor, progress: Tensor) -> Tensor:
        """Returns the weight of each image. [n] -> [n]."""
        threshold = self.gate_growth ** paper_epoch(progress)
        return torch.where(difficulty <= threshold, 1.0, torch.zeros_like(difficulty))


class Linear(Spec):
    """The threshold goes from start to end in a line over the trial."""

    kind: Literal["linear"] = "linear"
    linear_start: Annotated[Threshold, Range(0.5, 1.5)] = 1.0
    linear_end: Annotated[Threshold, Range(1.5, 4)] = 3.3  # 1.005^240

    def weight(self, difficulty: Tensor, progress: Tensor) -> Tensor:
        """Returns the weight of each image. [n] -> [n]."""
        return preview_weight(
            difficulty, self.linear_start + (self.linear_end - self.linear_start) * progress
        )


class Cosine(Spec):
    """The threshold goes from start to end along half a cosine."""

    kind: Literal["cosine"] = "cosine"
    cosine_start: Annotated[Threshold, Range(0.5, 1.5)] = 1.0
    cosine_end: Annotated[Threshold, Range(1.5, 4)] = 3.3

    def weight(self, difficulty: Tensor, progress: Tensor) -> Tensor:
        """Returns the weight of each image. [n] -> [n]."""
        part = 0.5 * (1 - torch.cos(math.pi * progress))
        return preview_weight(difficulty, self.cosine_start + (self.cosine_end - self.cosine_start) * part)


class Off(Spec):
    """Every image weighs 1."""

    kind: Literal["off"] = "off"

    def weight(self, difficulty: Tensor, progress: Tensor) -> Tensor:
        """Returns the weight of each image. [n] -> [n]."""
        return torch.ones_like(difficulty)


Preview = Annotated[Growth | Curriculum | Linear | Cosine | Off, Field(discriminator="kind")]


class Weights(_base.Weights):
    """The weight of each term."""

    kd: Annotated[Weight, Choice((0.0, 0.5, 1.0, 2.0))] = 0.0  # delta
    category: Annotated[Weight, Range(0.005, 0.5, log=True)] = 0.05  # beta
    centre: Annotated[Weight, Choice((0.0, 0.1, 1.0, 10.0))] = 1.0  # alpha
    feature: Annotated[Weight, Range(1, 50, log=True)] = 20.0  # f


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["pckd"] = "pckd"
    temperature: Annotated[float, Field(gt=0), Range(0.07, 8, log=True)] = 4.0  # of `category`
    base_temperature: Annotated[float, Field(gt=0)] = (
        0.07  # a factor on `category`, so its weight is searched
    )
    kd_temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    standardize: Standardize = False  # in `kd`
    widening: Annotated[int, Field(gt=0), Choice((1, 4, 16))] = 16  # q's hidden width over the teacher's
    preview: Preview = Growth()
    weights: Weights = Weights()


def paper_epoch(progress: Tensor) -> Tensor:
    """The paper's epoch, 1 at the start of the trial and 241 at its end."""
    return PAPER_EPOCHS * progress + 1


def difficulty(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over its mean of all ranks' images, no gradient. [n, c], [n] -> [n]."""
    loss = F.cross_entropy(logits.detach(), labels, reduction="none")
    return loss / all_gather(loss).mean()


def preview_weight(difficulty: Tensor, threshold: Tensor) -> Tensor:
    """1 up to the threshold, exp(-difficulty^2) beyond it. [n] -> [n]."""
    return torch.where(difficulty <= threshold, 1.0, torch.exp(-difficulty.square()))


def category_loss(
    by_student: Tensor, by_teacher: Tensor, labels: Tensor, temperature: float, base_temperature: float
) -> Tensor:
    """Supervised contrast of each view's two rows among all ranks' rows. [n, c], [n, c], [n] -> [n]."""
    first, num = rank_offset(labels), len(all_gather(labels))
    rows, keys = (
        torch.cat([by_student, by_teacher]),
        torch.cat([all_gather(by_student), all_gather(by_teacher)]),
    )
    row_key = torch.arange(first, first + len(labels), device=labels.device)
    row_key = torch.cat([row_key, row_key + num])[:, None]
    other = torch.arange(2 * num, device=labels.device) != row_key
    scores = rows @ keys.T / temperature
    scores = scores - scores.detach().amax(dim=1, keepdim=True)
    total = (scores.exp() * other).sum(dim=1, keepdim=True)
    positive = (labels.repeat(2)[:, None] == all_gather(labels).repeat(2)) & other
    mean = ((scores - torch.log(total + EPSILON)) * positive).sum(dim=1) / positive.sum(dim=1)
    return -(temperature / base_temperature) * mean.view(2, -1).sum(dim=0)


def centre_loss(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared difference of the heads' ([c, d], [c]), or 0 where their shapes differ. -> scalar."""
    student_centres, teacher_centres = (
        torch.cat([weight, bias[:, None]], dim=1) for weight, bias in (student, teacher)
    )
    if student_centres.shape != teacher_centres.shape:
        return student_centres.new_zeros(())
    return F.mse_loss(student_centres, teacher_centres)


def feature_loss(predicted: Tensor, teacher: Tensor) -> Tensor:
    """2 - 2 cos, mean over rows. [n, d], [n, d] -> scalar."""
    return 2 - 2 * F.cosine_similarity(predicted, teacher, dim=1).mean()


class Predictor(nn.Module):
    """Embeddings [n, d_in] -> [n, d_out] by two layers, batch norm and ReLU between."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(width, hidden, bias=False), AnyDeviceSyncBatchNorm(hidden)
        self.second = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Returns predictions of the teacher's embeddings."""
        out: Tensor = self.second(F.relu(self.norm(self.first(x)[:, :, None, None]).flatten(1)))
        return out


class Method(_base.Method):
    """Compares class centres, projections and embeddings, weighted by how hard an image is."""

    config: Config
    needs = frozenset({"logits", "embedding", "head"})
    status = "official"
    paper = "Preview-based Category Contrastive Learning for KD, IEEE TCSVT 2025, arXiv:2410.14143"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        student, teacher = context.student.embedding, context.teacher.embedding
        if config.weights.centre > 0 and student != teacher:
            raise ValueError(
                f"pckd: class centres of {student} (student) and {teacher} (teacher) numbers cannot be "
                "aligned: set method/weights/centre = 0"
            )
        self.student_head = nn.Linear(student, student)
        self.teacher_head = nn.Linear(student, teacher)
        self.predictor = Predictor(student, config.widening * teacher, teacher)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: kd, category, centre, feature."""
        upright = batch.upright
        student_logits, teacher_logits = batch.student.logits[upright], batch.teacher.logits[upright]
        hardness = difficulty(student_logits.float(), batch.labels[upright])
        divergence = soft_divergence(
            *prepare_logits(student_logits, teacher_logits, self.config.standardize),
            self.config.kd_temperature,
        )
        weight = self.config.preview.weight(hardness, batch.progress)
        embedding, target = batch.student.embedding.float(), batch.teacher.embedding.detach().float()
        centres = batch.student.head.weight.float(), batch.student.head.bias.float()
        targets = batch.teacher.head.weight.detach().float(), batch.teacher.head.bias.detach().float()
        category = category_loss(
            F.normalize(self.student_head(embedding), dim=1) @ centres[0].T,
            F.normalize(self.teacher_head(embedding), dim=1) @ targets[0].T,
            batch.labels, self.config.temperature, self.config.base_temperature,
        )  # fmt: skip
        return {
            "kd": (weight * divergence).mean(),
            "category": (weight.repeat_interleave(batch.rotations) * category).mean(),
            "centre": centre_loss(centres, targets),
            "feature": feature_loss(self.predictor(embedding), target),
        }
