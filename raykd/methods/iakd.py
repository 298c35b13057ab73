"""IAKD: interactive knowledge distillation (arXiv:2007.01476).

This is a reconstruction: the abstract was read, and no code was found. Stages of the student are replaced at
random by the frozen teacher's in the forward pass, and the mixed net learns from the labels; what is deployed
is the student alone.

    mixed  the cross-entropy of the mixed net: from the student's stem on, each image goes through each stage
           of the student with probability p, else through a connector, the teacher's stage and a connector
           back to the student's width
    kd     T^2 KL(softmax(t / T) || softmax(z / T)) of the teacher's and the student's own logits

Read: that the student's blocks are replaced at random by the teacher's corresponding ones. Reconstructed: all
else; that each image draws by itself, stage by stage (so that a step moves all connectors), and that the
student also learns by itself (`task`). Left open and so fields: the schedule of p ("constant", or "linear"
from `start` to 1 over the training), the connectors' kernel. The student's batch norms see the mixed maps,
too. `standardize` takes each row's z-score of both nets' logits first (arXiv:2403.01427). The draws depend on
a seed and the number of steps, both part of the state. Of rotated views only the upright ones are mixed.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths.gather import num_ranks, rank_offset
from raykd.maths.logits import prepare_logits, soft_divergence
from raykd.maths.maps import check_equal_sizes
from raykd.maths.norm import conv_bn
from raykd.maths.step_seed import StepSeed
from raykd.methods import _base
from raykd.methods._base import Standardize, Weight
from raykd.spec import Choice, Range, Spec

Probability = Annotated[float, Field(ge=0, le=1), Range(0.1, 0.9)]


class Constant(Spec):
    """The same probability throughout."""

    kind: Literal["constant"] = "constant"
    p: Probability = 0.5

    def compute(self, progress: Tensor) -> Tensor:
        """Returns the probability of the student's stage at a part of the training."""
        return torch.full_like(progress, self.p)


class Linear(Spec):
    """A probability that grows in a line to 1."""

    kind: Literal["linear"] = "linear"
    start: Probability = 0.5

    def compute(self, progress: Tensor) -> Tensor:
        """Returns the probability of the student's stage at a part of the training."""
        return self.start + (1 - self.start) * progress


class Weights(_base.Weights):
    """The weight of each term."""

    mixed: Annotated[Weight, Range(0.1, 5, log=True)] = 1.0
    kd: Annotated[Weight, Range(0.1, 20, log=True)] = 0.9


class Config(_base.MethodConfig):
    """The settings; the paper's are not known."""

    name: Literal["iakd"] = "iakd"
    schedule: Annotated[Linear | Constant, Field(discriminator="kind")] = Linear()
    kernel: Annotated[Literal[1, 3], Choice((1, 3))] = 1
    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    standardize: Standardize = False
    weights: Weights = Weights()


class Method(StepSeed, _base.Method):
    """Mixes the nets stage by stage."""

    config: Config
    needs = frozenset({"logits", "maps", "stages"})
    student_needs = frozenset({"logits", "maps", "stages"})
    status = "reconstruction"
    paper = "Interactive Knowledge Distillation for Image Classification, arXiv:2007.01476"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        check_equal_sizes(config.name, context)
        widths = [(s[0], t[0]) for s, t in zip(context.student.maps, context.teacher.maps, strict=True)]
        self.enter = nn.ModuleList(conv_bn(s, t, config.kernel) for s, t in widths[:-1])
        self.leave = nn.ModuleList(conv_bn(t, s, config.kernel) for s, t in widths[1:])
        self.draw_seed()

    def prepare(self, index: Tensor, rotations: int) -> tuple[Tensor, ...]:
        """Draws a number in 0 .. 1 for each upright image of this rank and each stage, [n, stages]."""
        generator, upright = self.make_generator(index.device), index[::rotations]
        self.steps += 1
        shape = num_ranks() * len(upright), len(self.enter)
        numbers = torch.rand(*shape, generator=generator, device=index.device)
        first = rank_offset(upright)
        return (numbers[first : first + len(upright)],)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: mixed, kd."""
        upright, config = batch.upright, self.config
        logits = self._run_mixed(batch, batch.student.maps[0][upright])
        both = prepare_logits(
            batch.student.logits[upright], batch.teacher.logits[upright], config.standardize
        )
        return {
            "mixed": F.cross_entropy(logits.float(), batch.labels[upright]),
            "kd": soft_divergence(*both, config.temperature).mean(),
        }

    def _run_mixed(self, batch: MethodBatch, x: Tensor) -> Tensor:
        """The mixed net's logits [n, c] from the student's stem's map."""
        student, teacher = batch.student_stages, batch.teacher_stages
        assert student is not None and teacher is not None
        (numbers,) = self.get_prepared(batch)
        by_student = numbers < self.config.schedule.compute(batch.progress)  # of each image, [n, stages]
        last = len(self.enter)
        for k, (enter, leave) in enumerate(zip(self.enter, self.leave, strict=True), start=1):
            replaced = leave(teacher.run_stage(k, F.relu(enter(x.float()))).float())
            own = student.run_stage(k, x)
            x = torch.where(by_student[:, k - 1, None, None, None], own.float(), replaced).to(own.dtype)
        return student.run_from(last + 1, x).logits
