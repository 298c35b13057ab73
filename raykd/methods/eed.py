"""EED: exit-ensemble distillation (Lee and Lee 2021, arXiv:2104.00299). No teacher.

Three classifiers (exits) on the student's inner maps and the student itself, 4 outputs k, learn from their
mean; the student is deployed without exits.

    exits    sum of the exits' cross-entropies
    logits   sum_k mean squared error of z_k and zbar, or T^2 KL of their soft-maxes
    feature  sum_k mean of (f_k - fbar)^2 where f_k or fbar is above 0

z_k are logits, f_k pooled features, zbar and fbar their means over k, without gradient. Official code
followed: hjdw2/Exit-Ensemble-Distillation, train.py, resnet.py. It gives the KL, its other option, a weight
of 0.1. An exit is a 3x3 convolution, a batch norm and a ReLU for each remaining stage, pooling and a linear
layer; the code has them after the first three stages of a ResNet18. Here they are on the three maps before
the last; the batch norms are over all ranks' rows. Of rotated views only the upright ones reach the exits.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.exits import Exits
from raykd.maths.logits import soft_divergence
from raykd.maths.norm import conv_bn_relu
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Range, Spec


class SquaredError(Spec):
    """The mean squared error."""

    kind: Literal["mse"] = "mse"

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of logits [n, c] against others, a scalar."""
        return F.mse_loss(logits, target)


class KL(Spec):
    """KL of the soft-maxes."""

    kind: Literal["kl"] = "kl"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 3.0

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of logits [n, c] against others, a scalar."""
        return soft_divergence(logits, target, self.temperature).mean()


class Weights(_base.Weights):
    """The weight of each term."""

    exits: Annotated[Weight, Range(0.1, 3, log=True)] = 1.0
    logits: Annotated[Weight, Range(0.03, 3, log=True)] = 1.0
    feature: Annotated[Weight, Range(0.03, 3, log=True)] = 1.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["eed"] = "eed"
    divergence: Annotated[SquaredError | KL, Field(discriminator="kind")] = SquaredError()
    weights: Weights = Weights()


def make_stage(channels_in: int, channels: int, stride: int) -> nn.Module:
    """Returns one stage of an exit: a single 3x3 convolution."""
    return conv_bn_relu(channels_in, channels, 3, stride)


def feature_loss(feature: Tensor, target: Tensor) -> Tensor:
    """Mean of the squared differences where either is above 0. [n, d], [n, d] -> scalar."""
    return ((feature - target).square() * ((feature > 0) | (target > 0))).mean()


class Method(_base.Method):
    """Pulls the student and its exits to their mean."""

    config: Config
    needs = frozenset()
    student_needs = frozenset({"maps", "pooled"})
    status = "official"
    paper = "Students are the Best Teacher: Exit-Ensemble Distillation with Multi-Exits, arXiv:2104.00299"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        self.exits = Exits(context, make_stage)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: exits, logits, feature."""
        outputs, labels = self.exits(batch), batch.labels[batch.upright]
        features = [x.mean(dim=(2, 3)) for x in outputs.maps]
        mean_logits, mean_feature = (torch.stack(x).mean(dim=0).detach() for x in (outputs.logits, features))
        compare = self.config.divergence.compare
        return {
            "exits": torch.stack([F.cross_entropy(z, labels) for z in outputs.logits[:-1]]).sum(),
            "logits": torch.stack([compare(z, mean_logits) for z in outputs.logits]).sum(),
            "feature": torch.stack([feature_loss(f, mean_feature) for f in features]).sum(),
        }
