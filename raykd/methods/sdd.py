"""SDD: scale decoupled distillation, on KD (Wei, Luo and Luo, CVPR 2024, arXiv:2403.13512): SD-KD.

    kd = mean over images and regions of w T^2 KL(softmax(t / T) || softmax(s / T))

Regions are the cells of the last map pooled to 1x1, 2x2 and 4x4; the head turns each into logits. w is 1
where the teacher is right (or wrong) about both the image and the region, and `complementary` where about
one only.

Official code followed: shicaiwei123/SDD-CVPR2024, mdistiller/distillers/KD.py, models/cifar/utils.py
(SPP). Its engine/cfg.py was not readable: the weights (0.1 and 0.9) and T = 4 are mdistiller's for KD.
SD-DKD and SD-NKD are not here. `standardize` takes each region's z-score first (arXiv:2403.01427).

The head must read the last map: nets with a layer between (WRN, MobileNetV2, ShuffleV2) are refused, by
shape or, where shapes agree, by the first batch.
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


def region_logits(maps: Tensor, head: Head, finest: int) -> Tensor:
    """What a head says of each region, the whole image first. [n, d, h, w] -> [n, regions, c]."""
    cells = F.adaptive_avg_pool2d(maps, FINEST)
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
    needs = frozenset({"logits", "maps", "head"})
    status = "official"
    paper = "Scale Decoupled Distillation, CVPR 2024, arXiv:2403.13512"

    def __init__(self, config: Config, setting: Setting) -> None:
        super().__init__()
        _base.check_classes(setting)
        for net, shapes in (("student", setting.student), ("teacher", setting.teacher)):
            if shapes.maps[-1][0] != shapes.embedding:
                raise ValueError(
                    f"sdd: the {net}'s last map has {shapes.maps[-1][0]} channels and its head reads "
                    f"{shapes.embedding}: its regions have no logits"
                )
        self.config = config
        self.checked = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        if not self.checked:
            _check_head("student", step.student)
            _check_head("teacher", step.teacher)
            self.checked = True
        student, teacher = self._logits(step.student), self._logits(step.teacher).detach()
        if self.config.standardize:
            student, teacher = standardize(student), standardize(teacher)
        temperature, complementary = self.config.temperature, self.config.complementary
        return {"kd": region_loss(student, teacher, step.labels, temperature, complementary)}

    def _logits(self, view: View) -> Tensor:
        head = Head(view.head.weight.float(), view.head.bias.float())
        return region_logits(view.maps[-1].float(), head, self.config.finest)


@torch.no_grad()
def _check_head(net: str, view: View) -> None:
    """ValueError when the head, applied to the pooled last map, does not give the net's logits."""
    weight, bias = view.head.weight.float(), view.head.bias.float()
    pooled, logits = view.maps[-1].float().mean(dim=(2, 3)), view.logits.float()
    if (F.linear(pooled, weight, bias) - logits).norm() > 0.1 * logits.norm():
        raise ValueError(
            f"sdd: the {net}'s head does not read its last map {tuple(view.maps[-1].shape[1:])}: "
            f"a layer lies between it and the embedding, {weight.shape[1]} wide"
        )
