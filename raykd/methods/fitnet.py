"""FitNet: hints from one stage's map (Romero et al., ICLR 2015, arXiv:1412.6550).

    hint = mean((relu(bn(conv(F_s))) - F_t)^2)

Official code followed: HobbitLong/RepDistiller, distiller_zoo/FitNet.py, models/util.py (ConvReg), its
layer (2) and its weight (100). As there, the hint is used throughout and not in a stage of its own as in
the paper. The convolution's bias, which the batch norm cancels, is left out; the batch norm is over all
ranks' rows.
"""

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.norm import AnyDeviceSyncBatchNorm
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    hint: Annotated[Weight, Range(10, 1000, log=True)] = 100.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["fitnet"] = "fitnet"
    hint: Annotated[int, Field(ge=0), Choice((1, 2, 3))] = 2  # of Outputs.maps, where 0 is the stem's
    weights: Weights = Weights()


def make_regressor(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Module:
    """The convolution between two shapes (channels, height, width). ValueError where there is none."""
    (channels_in, height, width), (channels, rows, columns) = student, teacher
    if (height, width) == (2 * rows, 2 * columns):
        return nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False)
    if (2 * height, 2 * width) == (rows, columns):
        return nn.ConvTranspose2d(channels_in, channels, 4, stride=2, padding=1, bias=False)
    if height >= rows and width >= columns:
        return nn.Conv2d(channels_in, channels, (1 + height - rows, 1 + width - columns), bias=False)
    raise ValueError(
        f"fitnet has no regressor from the student's map {student} to the teacher's {teacher}: "
        "the student's must be half as large, or at least as large"
    )


class Method(_base.Method):
    """Predicts one of the teacher's maps from the student's."""

    needs = frozenset({"maps"})
    status = "official"
    paper = "FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv:1412.6550"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        student, teacher = context.student.maps, context.teacher.maps
        if config.hint >= min(len(student), len(teacher)):
            raise ValueError(
                f"fitnet: hint = {config.hint}, but the student has {len(student)} maps "
                f"and the teacher {len(teacher)}"
            )
        self.hint = config.hint
        self.conv = make_regressor(student[config.hint], teacher[config.hint])
        self.norm = AnyDeviceSyncBatchNorm(teacher[config.hint][0])

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: hint."""
        guess = F.relu(self.norm(self.conv(batch.student.maps[self.hint].float())))
        return {"hint": F.mse_loss(guess, batch.teacher.maps[self.hint].detach().float())}
