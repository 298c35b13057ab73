"""WCoRD: Wasserstein contrastive representation distillation (Chen et al., CVPR 2021, arXiv:2012.08674).

This is a reconstruction: there is no public code and the paper's method section was not read, only its
abstract and what others write of it. s, t are unit embeddings, a = P s and c = P' t projections, f = <a, c>
the critic.

    dual    NCE of exp(f / temperature) / Z against negatives from a bank, in both directions (GCKT)
    primal  sum_ij plan_ij C_ij, C_ij = 1 - cos(a_i, c_j), over the global batch (LCKT)
    plan    argmin <plan, C> - epsilon H(plan), uniform marginals; no gradient

Read: the two forms, their roles and the 1-Lipschitz critic (abstract); the NCE loss, its banks, Z and
defaults (CRD's official code); IPOT as this group runs it (LiqunChen0606/Graph-Optimal-Transport).
Read, second hand: spectral normalisation of the critic, Sinkhorn's plan within a mini-batch (a review of the
paper); distances at the penultimate layer, a plan across instances (a later paper's related work).
Reconstructed: that the dual part is CRD's estimator, the weights 0.8 and 0.05, epsilon and the cost on the
shared projections. c is held fixed in the primal part, which otherwise falls to 0 by constant projections.

spectral_norm: "power", plain power iteration, finds a layer's norm from below, so that a critic may be
steeper than 1 by some per cent for the first steps; "bound" divides by a bound from above and never lets it.
critic: "sn_linear_nonorm" (one layer of norm 1 and no normalisation after it) and "sn_mlp2" (two layers
with a ReLU between) are 1-Lipschitz in each argument, over unit embeddings. "sn_linear_l2" normalises
after the layer, as CRD with spectral normalisation would: the scale cancels, and no Lipschitz bound is
left. solver: "ipot" repeats sinkhorn's problem from the plan before; the group's code has epsilon = 0.5
and 50 iterations.
Of rotated views only the upright ones are compared: a bank has one row an image.
"""

import warnings
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext
from raykd.maths import lipschitz, transport
from raykd.maths.bank import MemoryBank, Sampling
from raykd.maths.gather import all_gather
from raykd.methods import _base
from raykd.methods._base import Weight
from raykd.spec import Choice, Range

Critic = Literal["sn_linear_nonorm", "sn_linear_l2", "sn_mlp2"]
CRITICS = ("sn_linear_nonorm", "sn_linear_l2", "sn_mlp2")


class Weights(_base.Weights):
    """The weight of each term."""

    dual: Annotated[Weight, Range(0.1, 2, log=True)] = 0.8
    primal: Annotated[Weight, Range(0, 0.3)] = 0.05


class Config(_base.MethodConfig):
    """The settings; what the defaults rest on is said at the file's head."""

    name: Literal["wcord"] = "wcord"
    dim: Annotated[int, Field(gt=0), Choice((64, 128, 256))] = 128
    critic: Annotated[Critic, Choice(CRITICS)] = "sn_linear_nonorm"
    spectral_norm: Annotated[lipschitz.SpectralNorm, Choice(("power", "bound"))] = "power"
    negatives: Annotated[int, Field(gt=0), Choice((1024, 4096, 16384))] = 16384
    temperature: Annotated[float, Field(gt=0), Range(0.02, 0.5, log=True)] = 0.07
    momentum: Annotated[float, Field(ge=0, lt=1), Range(0, 0.9)] = 0.5
    sampling: Sampling = "shared"
    solver: Annotated[Literal["sinkhorn", "ipot"], Choice(("sinkhorn", "ipot"))] = "sinkhorn"
    epsilon: Annotated[float, Field(gt=0), Range(0.02, 0.5, log=True)] = 0.1  # Wasserstein regularization
    iterations: Annotated[int, Field(gt=0), Choice((50, 100, 200))] = 50  # at most; fewer when converged
    weights: Weights = Weights()


def cosine_cost(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos, in 0 .. 2. [n, d], [m, d] -> [n, m]."""
    return 1 - F.normalize(student, dim=1) @ F.normalize(teacher, dim=1).T


def primal_loss(cost: Tensor, plan: Tensor) -> Tensor:
    """<plan, cost>; the plan is held fixed (arXiv:2012.08674, LCKT). [n, m], [n, m] -> scalar."""
    return (plan.detach() * cost).sum()


class Projection(nn.Module):
    """One side of the critic: embeddings [n, width] -> [n, dim], of norm at most 1."""

    def __init__(self, width: int, dim: int, critic: Critic, spectral_norm: lipschitz.SpectralNorm) -> None:
        super().__init__()
        self.first = lipschitz.make_linear(width, dim, spectral_norm)
        self.second = lipschitz.make_linear(dim, dim, spectral_norm) if critic == "sn_mlp2" else None
        self.normalise = critic == "sn_linear_l2"

    def forward(self, embedding: Tensor) -> Tensor:
        """Returns the projections of embeddings, which it normalises first."""
        x: Tensor = self.first(F.normalize(embedding, dim=1))
        if self.second is not None:
            x = self.second(F.relu(x))
        return F.normalize(x, dim=1) if self.normalise else x


class Method(_base.Method):
    """Contrasts both nets' projections with banks, and moves the student's onto the teacher's by a plan."""

    config: Config
    needs = frozenset({"embedding"})
    status = "reconstruction"
    paper = "Wasserstein Contrastive Representation Distillation, CVPR 2021, arXiv:2012.08674"

    def __init__(self, config: Config, context: MethodContext) -> None:
        super().__init__(config, context)
        shape = config.dim, config.critic, config.spectral_norm
        self.student_head = Projection(context.student.embedding, *shape)
        self.teacher_head = Projection(context.teacher.embedding, *shape)
        self.memory = MemoryBank(
            context.labels, config.dim, config.negatives, config.sampling, config.temperature, config.momentum
        )
        self.memory.normalize()  # CRD's first rows may be longer than 1, and the critic then steeper
        self.warned = False

    def prepare(self, index: Tensor, rotations: int) -> tuple[Tensor, ...]:
        """Draws the negatives."""
        return (self.memory.draw(index[::rotations]),)

    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Returns the terms: dual, primal."""
        upright = batch.upright
        student = self.student_head(batch.student.embedding[upright].float())
        teacher = self.teacher_head(batch.teacher.embedding[upright].detach().float())
        index = batch.index[upright]
        cost = cosine_cost(all_gather(student), all_gather(teacher.detach()))
        return {
            "dual": self.memory(student, teacher, index, *self.get_prepared(batch)),
            "primal": primal_loss(cost, self._solve_plan(cost.detach())),
        }

    def _solve_plan(self, cost: Tensor) -> Tensor:
        """The transport plan; warns once when it did not converge, where a look does not wait."""
        solve = {"sinkhorn": transport.sinkhorn, "ipot": transport.ipot}[self.config.solver]
        result = solve(cost, self.config.epsilon, self.config.iterations)
        if transport.may_look(cost) and not self.warned and not result.converged:
            self.warned = True
            warnings.warn(
                f"wcord: {self.config.solver} did not converge: the plan's marginals are off by "
                f"{result.error:.1e} after {result.iterations} iterations at epsilon = "
                f"{self.config.epsilon:g}",
                stacklevel=2,
            )
        return result.plan
