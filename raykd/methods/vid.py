"""VID: variational information distillation (Ahn et al., CVPR 2019, arXiv:1904.05835).

    information = sum over stages of mean(((mu(F_s) - F_t)^2 / v + log v) / 2)

v is a variance for each channel, log(1 + exp(a)) + 1e-5; mu is three 1x1 convolutions, without batch
norm.

Official code followed: HobbitLong/RepDistiller, distiller_zoo/VID.py (from the authors), and its weight
(1). The larger map is pooled to the size of the smaller.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.maps import check_stages, match_sizes, stage_maps
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Range

EPSILON = 1e-5  # as released


class Weights(_base.Weights):
    """The weight of each term."""

    information: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["vid"] = "vid"
    init_variance: Annotated[float, Field(gt=0.01), Range(0.5, 20, log=True)] = 5.0
    weights: Weights = Weights()


def information_loss(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """-log of a Gaussian less a constant, mean over all values. [n, k, h, w], [k], [n, k, h, w] -> scalar."""
    variance = variance[:, None, None]
    return 0.5 * ((mean - target).square() / variance + variance.log()).mean()


class StageEstimator(nn.Module):
    """Predicts the teacher's map of one stage from the student's, as a Gaussian."""

    def __init__(self, channels_in: int, channels: int, init_variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        self.scale = nn.Parameter(torch.full((channels,), math.log(math.expm1(init_variance - EPSILON))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss of the teacher's map under the guess. -> scalar."""
        student, teacher = match_sizes(student, teacher)
        return information_loss(self.mean(student), F.softplus(self.scale) + EPSILON, teacher)


class Method(_base.Method):
    """Predicts each of the teacher's stages from the student's as a Gaussian."""

    needs = frozenset({"maps"})
    status = "official"
    paper = "Variational Information Distillation for Knowledge Transfer, CVPR 2019, arXiv:1904.05835"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        check_stages(context)
        pairs = zip(context.student.maps[1:], context.teacher.maps[1:], strict=True)
        self.stages = nn.ModuleList(StageEstimator(s[0], t[0], config.init_variance) for s, t in pairs)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: information."""
        pairs = zip(self.stages, stage_maps(batch.student), stage_maps(batch.teacher), strict=True)
        return {"information": torch.stack([stage(s, t.detach()) for stage, s, t in pairs]).sum()}
