"""MSDCRD: contrastive distillation of multi-scale regions (Wang and Wang, arXiv:2502.05835, version 3).

This is a reconstruction: there is no public code and the paper's method section was not read, only its
abstracts. The maps before global pooling are pooled in sliding windows of several sizes; x_n, y_n are the
student's and the teacher's vector of region n, over all images of the global batch and all sizes.

    sample   mean_n -log e(x_n y_n) / (e(x_n y_n) + sum over regions m of other images of e(x_n y_m))
    feature  mean_k -log e(X_k Y_k) / sum_l e(X_k Y_l), X_k, Y_k being channel k over the regions

with vectors normalised and e(x) = exp(x / temperature). Read: multi-scale sliding pooling, sample
selection, a sample-wise and a feature-wise contrastive loss, negatives of the batch alone, no parameter of
its own (abstracts; "parameter-free" in version 2's).
Reconstructed: all else. Left open by the abstracts and so fields: scales (windows of the map's side, its
half, its quarter, as far as the smaller map allows: the larger is first pooled to it), stride, selection
("teacher_correct" keeps whole images and the regions that the teacher's head classifies right; "weighted"
takes all, and those whose verdict differs from the whole image's twice, as SDD does,
shicaiwei123/SDD-CVPR2024; "all"), mask_same_class, align ("parameter_free": the regions' features where the
nets' channels are equally many, else "class_scores", the heads' scores of the regions; "conv": features, with
a 1x1 convolution and batch norm on the student where channels differ, which are parameters), keys (at most so
many regions, chosen at random a step). A head's scores of a region are exact: head and averaging are both
linear.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext, Outputs
from raykd.maths.contrast import info_nce
from raykd.maths.gather import all_gather, num_ranks
from raykd.maths.maps import match_sizes
from raykd.maths.norm import conv_bn
from raykd.maths.step_seed import StepSeed
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range

Stride = Literal["full", "half"]
Selection = Literal["teacher_correct", "weighted", "all"]
Align = Literal["parameter_free", "class_scores", "conv"]
COMPLEMENTARY = 2.0  # read in SDD


class Weights(_base.Weights):
    """The weight of each term."""

    sample: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0
    feature: Annotated[Weight, Range(0.1, 10, log=True)] = 1.0


class Config(_base.MethodConfig):
    """The settings; what the defaults rest on is said at the file's head."""

    name: Literal["msdcrd"] = "msdcrd"
    scales: Annotated[int, Field(ge=1), Choice((1, 2, 3))] = 3
    stride: Annotated[Stride, Choice(("full", "half"))] = "full"  # of the window
    selection: Annotated[Selection, Choice(("teacher_correct", "weighted", "all"))] = "teacher_correct"
    mask_same_class: Annotated[bool, Choice((True, False))] = False
    align: Annotated[Align, Choice(("parameter_free", "class_scores", "conv"))] = "parameter_free"
    temperature: Annotated[float, Field(gt=0), Range(0.05, 0.5, log=True)] = 0.1
    keys: Annotated[int, Field(ge=2), Choice((256, 1024))] = 1024
    weights: Weights = Weights()


def regions(maps: Tensor, scales: int, stride: Stride) -> Tensor:
    """Means over windows of size, size // 2, size // 4, ..., whole map first. [n, d, h, w] -> [n, r, d]."""
    height, width = maps.shape[2:]
    means = []
    for scale in range(min(scales, min(height, width).bit_length())):
        window = height >> scale, width >> scale
        hop = window if stride == "full" else (max(1, window[0] // 2), max(1, window[1] // 2))
        means.append(F.avg_pool2d(maps, window, hop).flatten(2))
    return torch.cat(means, dim=2).transpose(1, 2)


def region_weights(scores: Tensor, labels: Tensor, selection: Selection) -> Tensor:
    """What each region counts, 0 for left out. Teacher's scores [n, r, c], whole image first -> [n, r]."""
    correct = scores.argmax(dim=2) == labels[:, None]
    if selection == "weighted":
        return torch.where(correct == correct[:, :1], 1.0, COMPLEMENTARY)
    weight = correct.float()
    weight[:, 0] = 1.0
    return weight


def sample_loss(
    student: Tensor, teacher: Tensor, weight: Tensor, group: Tensor, temperature: float
) -> Tensor:
    """InfoNCE over regions, weighted mean. [k, d], [k, d], weight [k], group [k] -> scalar.

    Regions of the same group (image, or class), and regions of weight 0, are no negatives.
    """
    scores = F.normalize(student, dim=1) @ F.normalize(teacher, dim=1).T / temperature
    excluded = (group[:, None] == group) | (weight == 0)
    scores = scores.masked_fill(excluded.fill_diagonal_(False), -math.inf)
    return -(weight * F.log_softmax(scores, dim=1).diagonal()).sum() / weight.sum()


def feature_loss(student: Tensor, teacher: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """InfoNCE over channels, seen along the regions of weight above 0. [k, d], [k, d], [k] -> scalar."""
    used = (weight > 0)[:, None]
    student, teacher = (F.normalize(x * used, dim=0) for x in (student, teacher))
    return info_nce(student.T @ teacher / temperature)


class Method(StepSeed, _base.Method):
    """Contrasts regions of both nets' last features; the number of the step is part of the state."""

    config: Config
    needs = frozenset({"pooled", "head"})
    status = "reconstruction"
    paper = "Contrastive Representation Distillation via Multi-Scale Feature Decoupling, arXiv:2502.05835"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        channels, target = context.student.embedding, context.teacher.embedding
        self.by_scores = config.align == "class_scores" or (
            config.align == "parameter_free" and channels != target
        )
        if self.by_scores:
            _base.check_classes(context)
        self.align: nn.Module | None = None
        if config.align == "conv" and channels != target:
            self.align = conv_bn(channels, target, 1)
        maps = match_sizes(
            *(torch.zeros(1, 1, *net.pooled[1:]) for net in (context.student, context.teacher))
        )
        self.num_regions = regions(maps[0], config.scales, config.stride).shape[1]  # of an image
        self.draw_seed()

    def prepare(self, index: Tensor, rotations: int) -> tuple[Tensor, ...]:
        """Draws a number in 0 .. 1 for each region of all ranks, [k], by which `choose_rows` goes."""
        generator = self.make_generator(index.device)
        self.steps += 1
        count = num_ranks() * len(index) * self.num_regions
        return (torch.rand(count, generator=generator, device=index.device),)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: sample, feature."""
        student, teacher, weight = self._pool_regions(batch)
        group = batch.labels if self.config.mask_same_class else batch.index
        group = all_gather(group.repeat_interleave(self.num_regions))
        student, teacher, weight = (all_gather(x.flatten(0, 1)) for x in (student, teacher, weight))
        chosen = self.choose_rows(weight, *self.get_prepared(batch))
        student, teacher, weight, group = (x[chosen] for x in (student, teacher, weight, group))
        return {
            "sample": sample_loss(student, teacher, weight, group, self.config.temperature),
            "feature": feature_loss(student, teacher, weight, self.config.temperature),
        }

    def _pool_regions(self, batch: MethodBatch) -> tuple[Tensor, Tensor, Tensor]:
        """What is contrasted of each region [n, r, d] x 2, and its weight [n, r]."""
        maps = match_sizes(batch.student.pooled.float(), batch.teacher.pooled.detach().float())
        student, teacher = (regions(x, self.config.scales, self.config.stride) for x in maps)
        weight = torch.ones(teacher.shape[:2], device=teacher.device)
        if self.config.selection != "all":
            weight = region_weights(
                _score_regions(batch.teacher, teacher), batch.labels, self.config.selection
            )
        if self.by_scores:
            student, teacher = _score_regions(batch.student, student), _score_regions(batch.teacher, teacher)
        elif self.align is not None:
            student = regions(self.align(maps[0]), self.config.scales, self.config.stride)
        return student, teacher.detach(), weight

    def choose_rows(self, weight: Tensor, numbers: Tensor) -> Tensor:
        """At most `keys` rows by numbers in 0 .. 1, weights above 0 first. [k], [k] -> [m]."""
        order = numbers + (weight > 0)
        return order.topk(min(self.config.keys, len(weight))).indices


def _score_regions(outputs: Outputs, means: Tensor) -> Tensor:
    """The logits that a net's head gives regions. [n, r, d] -> [n, r, c]."""
    return F.linear(means, outputs.head.weight.float(), outputs.head.bias.float())
