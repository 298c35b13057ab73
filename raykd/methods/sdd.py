"""SDD: scale decoupled distillation (Wei, Luo and Luo, CVPR 2024, arXiv:2403.13512): SD-KD and SD-DKD.

    kd = mean over images and regions of w D(t, s), D being KD's divergence or DKD's (arXiv:2203.08679):
    kd:  T^2 KL(softmax(t / T) || softmax(s / T))
    dkd: min(progress / warm_up, 1) (TCKD + non_target NCKD)

Regions are the cells of the pooled features taken at 1x1, 2x2 and 4x4; the head turns each into logits. w
is 1 where the teacher is right (or wrong) about both the image and the region, and `complementary` where
about one only.

Official code followed: shicaiwei123/SDD-CVPR2024, mdistiller/distillers/KD.py, SDD_DKD.py,
models/cifar/utils.py (SPP), engine/cfg.py (weights 0.1 and 0.9, T = 4; DKD's weights 1 and 1, non_target =
8, which single pairs change), train_origin.py (a warm-up of 20 of 240 epochs; train.py: 1 of ImageNet's 100).
SD-NKD is not here. `standardize` takes each region's z-score first (arXiv:2403.01427).
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.batch import Head, MethodBatch, MethodContext, Outputs
from raykd.maths import ramp
from raykd.maths.logits import non_target_divergence, prepare_logits, soft_divergence, target_divergence
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Choice, Range, Spec

FINEST_GRID = 4  # coarser scales are pooled from this one, as released


class KD(Spec):
    """SD-KD."""

    kind: Literal["kd"] = "kd"

    def per_row(self, student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Returns the divergence of each row. Logits [n, c], [n, c], labels [n] -> [n]."""
        return soft_divergence(student, teacher, temperature)

    def loss_scale(self, progress: Tensor) -> Tensor:
        """Returns 1: it has no warm-up."""
        return torch.ones_like(progress, dtype=torch.float32)


class DKD(Spec):
    """SD-DKD."""

    kind: Literal["dkd"] = "dkd"
    non_target: Annotated[float, Field(ge=0), Range(0.5, 16, log=True)] = 8.0  # beta; alpha is 1
    warm_up: Annotated[float, Field(ge=0, le=1), Range(0, 0.25)] = 20 / 240

    def per_row(self, student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Returns the divergence of each row. Logits [n, c], [n, c], labels [n] -> [n]."""
        target = target_divergence(student, teacher, labels, temperature)
        return target + self.non_target * non_target_divergence(student, teacher, labels, temperature)

    def loss_scale(self, progress: Tensor) -> Tensor:
        """Returns the part that the warm-up lets through."""
        return ramp.linear(progress, self.warm_up)


Divergence = Annotated[KD | DKD, Field(discriminator="kind")]


class Weights(_base.Weights):
    """The weight of each term."""

    task: Annotated[Weight, Range(0.05, 2, log=True)] = 0.1
    kd: Annotated[Weight, Range(0.1, 20, log=True)] = 0.9


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["sdd"] = "sdd"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    finest: Annotated[Literal[1, 2, 4], Choice((1, 2, 4))] = 4  # scales are 1, 2, ... up to this
    complementary: Annotated[float, Field(ge=0), Range(0.5, 4, log=True)] = 2.0
    divergence: Divergence = KD()
    standardize: Standardize = False
    weights: Weights = Weights()


def region_logits(pooled: Tensor, head: Head, finest: int) -> Tensor:
    """The logits that a head gives each region, the whole image first. [n, d, h, w] -> [n, regions, c]."""
    cells = F.adaptive_avg_pool2d(pooled, FINEST_GRID)
    scales = [size for size in (1, 2, 4) if size <= finest]
    regions = torch.cat([F.adaptive_avg_pool2d(cells, size).flatten(2) for size in scales], dim=2)
    return F.linear(regions.transpose(1, 2), head.weight, head.bias)


def region_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    complementary: float,
    divergence: KD | DKD,
) -> Tensor:
    """Weighted, mean over regions. Logits [n, regions, c], whole image first; labels [n] -> scalar."""
    correct = teacher.argmax(dim=2) == labels[:, None]
    weight = torch.where(correct == correct[:, :1], 1.0, complementary).to(student.dtype)
    region_labels = labels.repeat_interleave(correct.shape[1])
    rows = divergence.per_row(student.flatten(0, 1), teacher.flatten(0, 1), region_labels, temperature)
    return (weight.flatten() * rows).mean()


class Method(_base.Method):
    """Compares the logits of regions."""

    config: Config
    needs = frozenset({"pooled", "head"})
    status = "official"
    paper = "Scale Decoupled Distillation, CVPR 2024, arXiv:2403.13512"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        _base.check_classes(context)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: kd."""
        config, divergence = self.config, self.config.divergence
        student, teacher = prepare_logits(
            self._region_logits(batch.student), self._region_logits(batch.teacher), config.standardize
        )
        loss = region_loss(
            student, teacher, batch.labels, config.temperature, config.complementary, divergence
        )
        return {"kd": divergence.loss_scale(batch.progress) * loss}

    def _region_logits(self, outputs: Outputs) -> Tensor:
        head = Head(outputs.head.weight.float(), outputs.head.bias.float())
        return region_logits(outputs.pooled.float(), head, self.config.finest)
