"""ReviewKD: knowledge review (Chen et al., CVPR 2021, arXiv:2104.09044).

Deep to shallow, a fusion takes the student's stage and what the deeper stages left, and puts out a
guess of the teacher's map of that stage; the deepest level is the pooled embedding. The guesses are
compared at several sizes (hierarchical context loss).

Official code followed: megvii-research/mdistiller, mdistiller/distillers/ReviewKD.py, which is
dvlab-research/ReviewKD's. Its weight is 5 for most pairs (0.6 ... 8 for others). The teacher's maps are taken
before the last ReLU of a stage, those of a WRN after the next stage's batch norm (models/cifar/wrn.py:141).
The student's are Outputs.maps, as on CIFAR; the release's ImageNet students are taken before the ReLU, too.
The batch norms are over all ranks' rows. The warm-up counts parts of the trial (20 of the paper's 240
epochs).
"""

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext, OutputShapes
from raykd.maths import ramp
from raykd.maths.maps import check_stages
from raykd.maths.norm import conv_bn
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Range

MAX_CHANNELS = 512  # channels inside a fusion, as released
SIZES = (4, 2, 1)


class Weights(_base.Weights):
    """The weight of each term."""

    review: Annotated[Weight, Range(0.3, 20, log=True)] = 5.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["reviewkd"] = "reviewkd"
    warm_up: Annotated[float, Field(ge=0, le=1), Range(0, 0.25)] = 20 / 240
    weights: Weights = Weights()


def context_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """HCL: squared error of each pair of [n, c, h, w] at full size and pooled to 4, 2, 1, summed over pairs.

    The sizes weigh 1, 1/2, 1/4, 1/8, over their sum; sizes that are not below a map's height are skipped.
    """
    return torch.stack([_pair_context_loss(s, t) for s, t in zip(student, teacher, strict=True)]).sum()


def _pair_context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    loss, weight, total = F.mse_loss(student, teacher), 1.0, 1.0
    for size in SIZES:
        if size < student.shape[2]:
            weight /= 2
            total += weight
            small, target = (F.adaptive_avg_pool2d(x, size) for x in (student, teacher))
            loss = loss + weight * F.mse_loss(small, target)
    return loss / total


class Fusion(nn.Module):
    """A student's level [n, channels_in, h, w] and the rest so far -> a guess of the teacher's, the rest.

    Both have the teacher's size; the guess has its channels, the rest `inner` ones.
    """

    def __init__(self, channels_in: int, inner: int, shape: tuple[int, int, int], deepest: bool) -> None:
        super().__init__()
        channels, *self.size = shape
        self.enter, self.leave = conv_bn(channels_in, inner, 1), conv_bn(inner, channels, 3)
        self.attention = None if deepest else nn.Conv2d(2 * inner, 2, 1)
        for conv in (self.enter[0], self.leave[0]):
            nn.init.kaiming_uniform_(cast(nn.Conv2d, conv).weight, a=1)

    def forward(self, x: Tensor, rest: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the guess and the rest for the next shallower level."""
        x = self.enter(x)
        if self.attention is not None and rest is not None:
            rest = F.interpolate(rest, x.shape[2:], mode="nearest")
            gate, rest_gate = self.attention(torch.cat([x, rest], dim=1)).sigmoid().chunk(2, dim=1)
            x = x * gate + rest * rest_gate
        if list(x.shape[2:]) != self.size:
            x = F.interpolate(x, self.size, mode="nearest")
        return self.leave(x), x


def levels(maps: Sequence[Tensor], embedding: Tensor) -> list[Tensor]:
    """Returns the maps of the stages, less the stem's, and the embedding as a 1x1 map, deep to shallow."""
    return [embedding.float()[:, :, None, None], *(x.float() for x in maps[:0:-1])]


def level_shapes(shapes: OutputShapes) -> list[tuple[int, int, int]]:
    """Returns the shapes of the levels, without the batch axis."""
    return [(shapes.embedding, 1, 1), *reversed(shapes.maps[1:])]


class Method(_base.Method):
    """Fuses the student's stages, deep to shallow, into guesses of the teacher's."""

    needs = frozenset({"preacts", "embedding"})
    student_needs = frozenset({"maps"})
    status = "official"
    paper = "Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv:2104.09044"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        check_stages(context)
        self.warm_up = config.warm_up
        inner = min(MAX_CHANNELS, context.student.embedding)
        pairs = zip(level_shapes(context.student), level_shapes(context.teacher), strict=True)
        self.fusions = nn.ModuleList(
            Fusion(student[0], inner, teacher, deepest=depth == 0)
            for depth, (student, teacher) in enumerate(pairs)
        )

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: review."""
        student = levels(batch.student.maps, batch.student.embedding)
        guesses, rest = [], None
        for fusion, level in zip(self.fusions, student, strict=True):
            guess, rest = fusion(level, rest)
            guesses.append(guess)
        targets = [x.detach() for x in levels(batch.teacher.preacts, batch.teacher.embedding)]
        return {"review": ramp.linear(batch.progress, self.warm_up) * context_loss(guesses, targets)}
