"""Block-KD: block-wise logit distillation (arXiv:2411.01547).

This is a reconstruction: the abstract was read, and no code was found. Mixed nets k go from the student's
first stages over to the teacher's last ones: a connector brings the student's map k to the teacher's width,
and the frozen teacher's stages k + 1, ... and its classifier read it, for k from 1 (0 is the stem) to the
last but one.

    mixed_task  mean over k of the cross-entropy of the mixed net's logits
    mixed_kd    mean over k of T^2 KL(softmax(t / T) || softmax(mixed / T)), t the teacher's logits
    kd          T^2 KL(softmax(t / T) || softmax(z / T)), z the student's

Read: stepping-stone models, in which the teacher's blocks are replaced step by step, and whose logits are
compared. Reconstructed: all else. Left open and so fields: the connector's kernel (a batch norm follows it),
and whether a ReLU ends it, as it ends most nets' stages. `standardize` takes each row's z-score of both nets'
logits first (arXiv:2403.01427). Of rotated views only the upright ones are mixed.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.logits import prepare_logits, soft_divergence
from raykd.maths.maps import check_equal_sizes
from raykd.maths.norm import conv_bn
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Choice, Range


class Weights(_base.Weights):
    """The weight of each term."""

    mixed_task: Annotated[Weight, Range(0.05, 3, log=True)] = 0.5
    mixed_kd: Annotated[Weight, Range(0.05, 5, log=True)] = 0.5
    kd: Annotated[Weight, Range(0.1, 20, log=True)] = 0.9


class Config(_base.MethodConfig):
    """The settings; the paper's are not known."""

    name: Literal["blockkd"] = "blockkd"
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    standardize: Standardize = False
    kernel: Annotated[Literal[1, 3], Choice((1, 3))] = 1
    relu: Annotated[bool, Choice((True, False))] = True
    weights: Weights = Weights()


class Method(_base.Method):
    """Teaches the student's stages by the teacher's stages behind them."""

    config: Config
    needs = frozenset({"logits", "maps", "stages"})
    student_needs = frozenset({"logits", "maps"})
    status = "reconstruction"
    paper = "Decoupling Dark Knowledge via Block-wise Logit Distillation, IEEE TAI 2024, arXiv:2411.01547"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        check_equal_sizes(config.name, context)
        pairs = list(zip(context.student.maps, context.teacher.maps, strict=True))[1:-1]
        self.connectors = nn.ModuleList(conv_bn(s[0], t[0], config.kernel) for s, t in pairs)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: mixed_task, mixed_kd, kd."""
        assert batch.teacher_stages is not None
        upright, config = batch.upright, self.config
        labels, mixed = batch.labels[upright], []
        for k, connect in enumerate(self.connectors, start=1):
            x = connect(batch.student.maps[k][upright].float())
            outputs = batch.teacher_stages.run_from(k + 1, F.relu(x) if config.relu else x)
            mixed.append(outputs.logits.float())

        def compute_kd(logits: Tensor) -> Tensor:
            both = prepare_logits(logits, batch.teacher.logits[upright], config.standardize)
            return soft_divergence(*both, config.temperature).mean()

        return {
            "mixed_task": torch.stack([F.cross_entropy(z, labels) for z in mixed]).mean(),
            "mixed_kd": torch.stack([compute_kd(z) for z in mixed]).mean(),
            "kd": compute_kd(batch.student.logits[upright]),
        }
