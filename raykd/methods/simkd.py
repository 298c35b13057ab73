"""SimKD: the student reuses the teacher's classifier (Chen et al., CVPR 2022, arXiv:2203.14001).

    feature = mean((p(F_s) - F_t)^2)

p is three convolutions (1x1, 3x3, 1x1, each with batch norm and ReLU) from F_s, the student's last map, to
F_t, the features that the teacher's classifier pools; the larger of the two is average-pooled to the size of
the smaller. The deployed student is the student, p, and the teacher's classifier on the mean of p(F_s): p
adds parameters at inference, and a last convolution that the student has for its own head (ShuffleV2's to
1024 channels, MobileNetV2's to 1280) is passed by.

Official code followed: DefangChen/SimKD, models/util.py (SimKD), helper/loops.py (feat[-2] of both nets; in
validation as in training), factor 2, weights 0 for cross-entropy and 1 for the features. It has no WRN: here
F_s and F_t of one are after its last batch norm and ReLU. The cross-entropy here is that of the student's own
head, which is not deployed. Batch norm is over all ranks' rows.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext, Outputs
from raykd.maths.maps import pool_down
from raykd.maths.norm import conv_bn_relu
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    task: Weight = 0.0
    feature: Annotated[Weight, Range(0.2, 5, log=True)] = 1.0


class Config(_base.MethodConfig):
    """The settings; the defaults are the official code's."""

    name: Literal["simkd"] = "simkd"
    factor: Annotated[int, Field(ge=1), Choice((1, 2, 4, 8))] = (
        2  # the middle is as wide as the teacher / factor
    )
    weights: Weights = Weights()


class ReusedClassifier(nn.Module):
    """Outputs of the student -> logits [n, c], by the projector and a copy of the teacher's classifier."""

    weight: Tensor
    bias: Tensor

    def __init__(self, context: MethodContext, factor: int) -> None:
        super().__init__()
        (channels_in, *_), (channels, *self.size) = context.student.maps[-1], context.teacher.pooled
        is_last = channels_in == context.student.embedding  # no convolution lies between
        self.reads_pooled = is_last and "pooled" not in context.student.missing
        middle = max(1, channels // factor)
        self.projector = nn.Sequential(
            *conv_bn_relu(channels_in, middle, 1),
            *conv_bn_relu(middle, middle, 3),
            *conv_bn_relu(middle, channels, 1),
        )
        self.register_buffer("weight", torch.zeros(context.teacher.classes, channels))
        self.register_buffer("bias", torch.zeros(context.teacher.classes))

    def project(self, outputs: Outputs) -> Tensor:
        """Returns p(F_s) [n, channels of the teacher, h, w], no larger than the teacher's features."""
        maps = outputs.pooled if self.reads_pooled else outputs.maps[-1]
        features: Tensor = self.projector(pool_down(maps.float(), self.size))
        return features

    def forward(self, outputs: Outputs) -> Tensor:
        """Returns the logits [n, c] that are deployed."""
        return F.linear(self.project(outputs).mean(dim=(2, 3)), self.weight, self.bias)


class Method(_base.Method):
    """Projects the student's last map onto the teacher's; its `deploy_head` replaces the student's."""

    needs = frozenset({"pooled", "head"})
    student_needs = frozenset({"maps"})
    status = "official"
    paper = "Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022, arXiv:2203.14001"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        _base.check_classes(context)
        self.deploy_head: ReusedClassifier = ReusedClassifier(context, config.factor)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the term: feature."""
        with torch.no_grad():
            self.deploy_head.weight.copy_(batch.teacher.head.weight)
            self.deploy_head.bias.copy_(batch.teacher.head.bias)
        student = self.deploy_head.project(batch.student)
        teacher = pool_down(batch.teacher.pooled.detach().float(), student.shape[2:])
        return {"feature": F.mse_loss(student, teacher)}
