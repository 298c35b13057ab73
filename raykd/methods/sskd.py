"""SSKD: distillation with a self-supervised task (Xu et al., ECCV 2020, arXiv:2006.07114).

Each image comes upright and turned by 90, 180, 270 degrees. Each net has a head (two layers) on its
embedding; the cosines of turned views with all upright ones say which image a turned view belongs to.

    teacher_head = cross-entropy of that question, for the head on the frozen teacher
    kd           = KD of the upright views
    rotated      = KD of the turned views, with all that the teacher gets right and the easiest of the others
    similarity   = T^2 KL of the soft-max over upright views, chosen alike by the teacher's scores

Official code followed: xuguodong03/SSKD, student.py, wrapper.py. The release trains the teacher's head
for 60 epochs, at a rate of 0.05 that falls to a tenth after 30 and again after 45 (student.py:27-36), then
makes the student and its head and trains them for 240 by all terms. Here the teacher's head learns so in
the first `teacher_stage` of the trial (60 of 300 epochs) and rests after it; the student's head rests in that
stage, without weight decay or momentum, and `similarity`, the only term that reads the heads, is 0 in it,
as is `teacher_head` after it. Unlike the release, the student's other terms teach it in that stage, too.
Ties between equally wrong views go to the earlier one. Upright views and choices are all ranks'.
`standardize` takes each row's z-score of both nets' logits first, in `kd` and `rotated` (arXiv:2403.01427).
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.gather import all_gather, num_ranks, rank_offset
from raykd.maths.logits import prepare_logits, soft_divergence
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Choice, Range

ROTATIONS = 4
TEACHER_MILESTONES, TEACHER_FACTOR = (30 / 60, 45 / 60), 0.1  # of the teacher's stage, as released
ROUNDING = 1e-9  # of a product of fractions, for an epoch that begins at a milestone


class Weights(_base.Weights):
    """The weight of each term."""

    task: Annotated[Weight, Range(0.05, 2, log=True)] = 0.1
    teacher_head: Weight = 1.0
    kd: Annotated[Weight, Range(0.1, 20, log=True)] = 0.9
    rotated: Annotated[Weight, Range(0.3, 30, log=True)] = 2.7
    similarity: Annotated[Weight, Range(1, 100, log=True)] = 10.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["sskd"] = "sskd"
    teacher_stage: Annotated[float, Field(ge=0, lt=1), Choice((0.1, 0.2, 0.3))] = 0.2
    teacher_lr: Annotated[float, Field(gt=0)] = 0.05  # of its head, whatever the student's
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    rotated_temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    similarity_temperature: Annotated[float, Field(gt=0), Range(0.1, 2, log=True)] = 0.5
    standardize: Standardize = False
    rotated_keep: Annotated[float, Field(ge=0, le=1), Range(0, 1)] = (
        1.0  # of the views that the teacher gets wrong
    )
    similarity_keep: Annotated[float, Field(ge=0, le=1), Range(0, 1)] = 0.75
    weights: Weights = Weights()


def select_upright(x: Tensor) -> Tensor:
    """Returns each image's upright view. [4 n, ...] -> [n, ...]."""
    return x[::ROTATIONS]


def select_rotated(x: Tensor) -> Tensor:
    """Returns the three turned views of each image. [4 n, ...] -> [3 n, ...]."""
    return x.reshape(-1, ROTATIONS, *x.shape[1:])[:, 1:].flatten(0, 1)


def similarities(features: Tensor) -> Tensor:
    """Cosines of this rank's turned views with all ranks' upright ones. [4 n, d] -> [3 n, m]."""
    unit = F.normalize(features, dim=1)
    return select_rotated(unit) @ all_gather(select_upright(unit)).T


def target_ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Returns how many scores lie above a row's target's: 0 where it is right. [k, c], [k] -> [k]."""
    return (scores > scores.gather(1, target[:, None])).sum(dim=1)


def easy_mean(loss: Tensor, place: Tensor, keep: float) -> Tensor:
    """A loss's mean over the rows of place 0 and the part `keep` of the others, by place. [k], [k] -> scalar.

    Rows are chosen among all ranks', and the ranks' means average to the global batch's.
    """
    all_places, first = all_gather(place), rank_offset(place)
    num_correct = (all_places == 0).sum()
    limit = num_correct + ((len(all_places) - num_correct) * keep).floor()
    kept = all_places.argsort(stable=True).argsort() < limit
    return (loss * kept[first : first + len(place)]).sum() * num_ranks() / limit.clamp(min=1)


def easy_divergence(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float, keep: float
) -> Tensor:
    """T^2 KL of the rows that the teacher finds easy. Scores [k, c], [k, c], right answers [k] -> scalar."""
    return easy_mean(soft_divergence(student, teacher, temperature), target_ranks(teacher, target), keep)


def make_head(dim: int) -> nn.Sequential:
    """Returns a head of two layers. [n, dim] -> [n, dim]."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))


class Method(_base.Method):
    """Compares logits of all views, and which image each net takes a turned view for, in two stages."""

    config: Config
    needs = frozenset({"logits", "embedding"})
    status = "official"
    rotations = ROTATIONS
    paper = "Knowledge Distillation Meets Self-Supervision, ECCV 2020, arXiv:2006.07114"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        self.student_head = make_head(context.student.embedding)
        self.teacher_head = make_head(context.teacher.embedding)
        self.learning_rates = {"student_head": self.student_rate, "teacher_head": self.teacher_rate}

    def student_rate(self, progress: float, lr: float) -> float:
        """Returns the rate of the student's head: 0 in the teacher's stage, then the recipe's `lr`."""
        return 0.0 if progress < self.config.teacher_stage else lr

    def teacher_rate(self, progress: float, lr: float) -> float:
        """Returns the rate of the teacher's head: `teacher_lr`, in steps down within its stage, then 0."""
        stage = self.config.teacher_stage
        num_steps = sum(progress > milestone * stage - ROUNDING for milestone in TEACHER_MILESTONES)
        return self.config.teacher_lr * TEACHER_FACTOR**num_steps if progress < stage else 0.0

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: teacher_head, kd, rotated, similarity."""
        config, learning = self.config, batch.progress < self.config.teacher_stage
        student, teacher = prepare_logits(batch.student.logits, batch.teacher.logits, config.standardize)
        image = (
            rank_offset(select_upright(student))
            + torch.arange(len(student), device=student.device) // ROTATIONS
        )
        student_scores = similarities(self.student_head(batch.student.embedding.float()))
        teacher_scores = similarities(self.teacher_head(batch.teacher.embedding.detach().float()))
        rotated = easy_divergence(
            select_rotated(student),
            select_rotated(teacher),
            select_rotated(batch.labels),
            config.rotated_temperature,
            config.rotated_keep,
        )
        similarity = easy_divergence(
            student_scores,
            teacher_scores.detach(),
            select_rotated(image),
            config.similarity_temperature,
            config.similarity_keep,
        )
        return {
            "teacher_head": learning * F.cross_entropy(teacher_scores, select_rotated(image)),
            "kd": soft_divergence(
                select_upright(student), select_upright(teacher), config.temperature
            ).mean(),
            "rotated": rotated,
            "similarity": ~learning * similarity,
        }
