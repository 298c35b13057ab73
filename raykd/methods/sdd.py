"""SDD: scale decoupled distillation, on KD (Wei, Luo and Luo, CVPR 2024, arXiv:2403.13512): SD-KD.

    kd = mean over images and regions of w T^2 KL(softmax(t / T) || softmax(s / T))

Regions are the cells of the pooled features taken at 1x1, 2x2 and 4x4; the head turns each into logits. w
is 1 where the teacher is right (or wrong) about both the image and the region, and `complementary` where
about one only.

Official code followed: shicaiwei123/SDD-CVPR2024, mdistiller/distillers/KD.py, models/cifar/utils.py
(SPP). Its engine/cfg.py was not readable: the weights (0.1 and 0.9) and T = 4 are mdistiller's for KD.
SD-DKD and SD-NKD are not here. `standardize` takes each region's z-score first (arXiv:2403.01427).
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.maths.logits import soft_divergence, standardize
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.space import Choice, Range
from raykd.step import Head, Setting, Step, View

FINEST = 4  # coarser scales are pooled from this one, as released


class Weights(_base.Weights):
    task: Annotated[Weight, Range(0.05, 2, log=True)] = 0.1
    kd: Annotated[Weight, Range(0.1, 20, log=True)] = 0.9


class Config(_base.MethodConfig):
    name: Literal["sdd"] = "sdd"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    finest: Annotated[Literal[1, 2, 4], Choice((1, 2, 4))] = 4  # scales are 1, 2, ... up to this
    complementary: Annotated[float, Field(ge=0), Range(0.5, 4, log=True)] = 2.0
    standardize: Annotated[bool, Choice((True, False))] = False
    weights: Weights = Weights()


def region_logits(pooled: Tensor, head: Head, finest: int) -> Tensor:
    """What a head says of each region, the whole image first. [n, d, h, w] -> [n, regions, c]."""
    cells = F.adaptive_avg_pool2d(pooled, FINEST)
    scales = [size for size in (1, 2, 4) if size <= finest]
    regions = torch.cat([F.adaptive_avg_pool2d(cells, size).flatten(2) for size in scales], dim=2)
    return F.linear(regions.transpose(1, 2), head.weight, head.bias)


def region_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, complementary: float = 2.0
) -> Tensor:
    """Weighted T^2 KL, mean over regions. Logits [n, regions, c], whole image first; labels [n] -> scalar."""
    right = teacher.argmax(dim=2) == labels[:, None]
    weight = torch.where(right == right[:, :1], 1.0, complementary).to(student.dtype)
    return (weight * soft_divergence(student, teacher, temperature)).mean()


class Method(_base.Method):
    needs = frozenset({"pooled", "head"})
    status = "official"
    paper = "Scale Decoupled Distillation, CVPR 2024, arXiv:2403.13512"

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__()
        _base.check_classes(setting)
        self.config = config

    def forward(self, step: Step) -> dict[str, Tensor]:
        student, teacher = self._logits(step.student), self._logits(step.teacher).detach()
        if self.config.standardize:
            student, teacher = standardize(student), standardize(teacher)
        temperature, complementary = self.config.temperature, self.config.complementary
        return {"kd": region_loss(student, teacher, step.labels, temperature, complementary)}

    def _logits(self, view: View) -> Tensor:
        head = Head(view.head.weight.float(), view.head.bias.float())
        return region_logits(view.pooled.float(), head, self.config.finest)
