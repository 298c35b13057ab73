"""AT: attention transfer (Zagoruyko and Komodakis, ICLR 2017, arXiv:1612.03928).

    attention = sum over stages of mean((q_s - q_t)^2),  q = Q / |Q|,  Q = mean over channels of |F|^p

Official code followed: HobbitLong/RepDistiller, distiller_zoo/AT.py, and its weight (1000). The larger
map is pooled to the size of the smaller.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.maps import check_stages, match_sizes, stage_maps
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    attention: Annotated[Weight, Range(100, 10000, log=True)] = 1000.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["at"] = "at"
    power: Annotated[int, Field(ge=1), Choice((1, 2, 4))] = 2  # p
    weights: Weights = Weights()


def attention(maps: Tensor, power: int = 2) -> Tensor:
    """Returns where a map is large, as a unit vector. [n, channels, h, w] -> [n, h * w]."""
    return F.normalize(maps.abs().pow(power).mean(dim=1).flatten(1), dim=1)


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], power: int = 2) -> Tensor:
    """Squared difference of attention, mean over rows and places, summed over pairs of maps -> scalar."""
    pairs = (match_sizes(s, t) for s, t in zip(student, teacher, strict=True))
    return torch.stack([F.mse_loss(attention(s, power), attention(t, power)) for s, t in pairs]).sum()


class Method(_base.Method):
    """Compares the attention of each pair of stages."""

    needs = frozenset({"maps"})
    status = "official"
    paper = "Paying More Attention to Attention, ICLR 2017, arXiv:1612.03928"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        check_stages(context)
        self.power = config.power

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: attention."""
        teacher = [x.detach() for x in stage_maps(batch.teacher)]
        return {"attention": attention_loss(stage_maps(batch.student), teacher, self.power)}
