"""BEED: distillation by an ensemble of exits that is balanced (Lee and Lee, ACCV 2022). No teacher.

Three classifiers (exits) on the student's inner maps and the student itself, 4 outputs k = 1 .. 4, learn from
their weighted mean; the student is deployed without exits.

    exits    sum over exits of (2 - A_k) cross-entropy, A_k = alpha^(4 - k)
    kd       sum_k A_k T^2 KL of z_k and zbar
    feature  sum_k mean squared error of f_k and fbar

z_k are logits, f_k the maps before pooling, zbar and fbar their means with weights beta^(k - 1), without
gradient. As A_4 = 1, `task` is the student's own cross-entropy. Official code followed: hjdw2/BEED, train.py,
resnet.py (it goes on from EED, arXiv:2104.00299). An exit has for each remaining stage three
convolutions, 1x1, 3x3 and 1x1, each with a batch norm and a ReLU, then pooling
and a linear layer; the code has them after the first three stages of a ResNet18. Here they are on the three
maps before the last; the batch norms are over all ranks' rows. Of rotated views only the upright ones count.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.exits import NUM_EXITS, Exits
from raykd.maths.logits import soft_divergence
from raykd.maths.norm import conv_bn_relu
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Range

MAX_ALPHA = 2 ** (1 / NUM_EXITS)  # beyond it a cross-entropy's weight is below 0


class Weights(_base.Weights):
    """The weight of each term."""

    exits: Annotated[Weight, Range(0.1, 3, log=True)] = 1.0
    kd: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0
    feature: Annotated[Weight, Range(0.01, 1, log=True)] = 0.1


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["beed"] = "beed"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 3.0
    alpha: Annotated[float, Field(gt=0, le=MAX_ALPHA), Range(1, 1.25)] = 1.15  # balance of an exit's losses
    beta: Annotated[float, Field(gt=0), Range(1, 3)] = 1.6  # a deeper output's importance in the ensemble
    weights: Weights = Weights()


def make_stage(channels_in: int, channels: int, stride: int) -> nn.Module:
    """Returns one stage of an exit: 1x1, 3x3, 1x1 convolutions."""
    return nn.Sequential(
        conv_bn_relu(channels_in, channels, 1),
        conv_bn_relu(channels, channels, 3, stride),
        conv_bn_relu(channels, channels, 1),
    )


def weighted_mean(outputs: list[Tensor], beta: float) -> Tensor:
    """The mean of same-shaped tensors with weights beta^0, beta^1, ..., without gradient."""
    powers = [beta**k for k in range(len(outputs))]
    total = torch.stack([p * x.detach() for p, x in zip(powers, outputs, strict=True)]).sum(dim=0)
    return total / sum(powers)


class Method(_base.Method):
    """Pulls the student and its exits to their weighted mean."""

    config: Config
    needs = frozenset()
    student_needs = frozenset({"maps", "pooled"})
    status = "official"
    paper = "Rethinking Online Knowledge Distillation with Multi-Exits, ACCV 2022"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        self.exits = Exits(context, make_stage)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: exits, kd, feature."""
        (logits, maps), labels = self.exits(batch), batch.labels[batch.upright]
        mean_logits, mean_map = (weighted_mean(x, self.config.beta) for x in (logits, maps))
        balance = [self.config.alpha ** (NUM_EXITS - k) for k in range(NUM_EXITS + 1)]
        task = [(2 - a) * F.cross_entropy(z, labels) for a, z in zip(balance, logits[:-1], strict=False)]
        divergences = [soft_divergence(z, mean_logits, self.config.temperature).mean() for z in logits]
        kd = [a * divergence for a, divergence in zip(balance, divergences, strict=True)]
        return {
            "exits": torch.stack(task).sum(),
            "kd": torch.stack(kd).sum(),
            "feature": torch.stack([F.mse_loss(x, mean_map) for x in maps]).sum(),
        }
