"""Optimal transport between two equally weighted sets: Sinkhorn in the log domain, and IPOT.

Legend: n rows of weight 1/n, m columns of weight 1/m. `cost` [n, m] is any real cost; `epsilon` is in its
units. A marginal error is sum |row sums - 1/n| + sum |column sums - 1/m|, between 0 and 4. Plans carry no
gradient, and are computed in float64 whatever the cost's dtype.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-4  # of the marginal error
SWEEPS = 10  # plain Sinkhorn sweeps before Newton's steps
LOOKS_AT = ("cpu",)  # devices whose values the host sees at once
GPU_NEWTON_STEPS = 4  # at n = 256, epsilon = 0.02 the error was then 1.6e-4 at most; below TOLERANCE with 5
CHECK_EVERY = 5  # sweeps between two checks of the error
DAMPING = (0.0, 1e-6, 1e-4, 1e-2, 1e-1)  # of Newton's steps, relative to the row sums
TINY = 1e-14  # keeps the undamped matrix positive definite


class Transport(NamedTuple):
    """A plan and how far to trust it."""

    plan: Tensor  # [n, m], non-negative, the cost's dtype
    error: Tensor  # [], marginal error of the plan
    iterations: int  # used; on a GPU those after which the plan stayed as it was, too

    @property
    def converged(self) -> Tensor:
        """Whether the error is below TOLERANCE: []."""
        return self.error < TOLERANCE


class _Convergence:
    """Whether a solver is done: a CPU's host looks and stops; on a GPU what has converged stays as it is.

    There a look would wait for the GPU, so the solver goes on to its last iteration, and gives the same plan.
    """

    def __init__(self, cost: Tensor, iterations: int) -> None:
        self.can_look, self.last = may_look(cost), iterations
        self._done = torch.zeros((), dtype=torch.bool, device=cost.device)
        self.error = cost.new_full((), math.inf)

    def stops(self, count: int, plan: Tensor) -> bool:
        """Takes the plan of an iteration; returns whether it is the last one."""
        self.error = _marginal_error(plan)
        if self.can_look:
            return count == self.last or bool(self.error < TOLERANCE)
        self._done = self._done | (self.error < TOLERANCE)
        return count == self.last

    def keep(self, now: Tensor, following: Tensor) -> Tensor:
        """Returns what follows, or on a GPU what is now once the solver has converged."""
        return following if self.can_look else torch.where(self._done, now, following)


@torch.no_grad()
def sinkhorn(cost: Tensor, epsilon: float, iterations: int) -> Transport:
    """Returns argmin <P, cost> - epsilon H(P), P with these marginals (Cuturi 2013, arXiv:1306.0895). [n, m].

    Ten sweeps in the log domain. Where these are not enough (small epsilon, close ties: plain sweeps may then
    need 10^5), Newton's steps on the semi-dual sum f/n + sum g(f)/m go on, g being the sweep's other half;
    of several damped steps and the plain sweep the one with the highest semi-dual is taken, so none is worse
    than the sweep. The problem and its solution are Sinkhorn's; the steps are this file's own. On a GPU there
    are at most GPU_NEWTON_STEPS.
    """
    scaled = -cost.double() / epsilon
    f = scaled.new_zeros(len(cost))
    most = iterations if may_look(cost) else min(iterations, SWEEPS + GPU_NEWTON_STEPS)
    convergence = _Convergence(scaled, most)
    for count in range(1, convergence.last + 1):
        plan = _make_plan(scaled, f)
        is_checked = count == convergence.last or count > SWEEPS or count % CHECK_EVERY == 0
        if is_checked and convergence.stops(count, plan):
            break
        sweep = f - math.log(len(cost)) - plan.sum(dim=1).log()
        following = (
            sweep
            if count <= SWEEPS
            else _pick_best(scaled, torch.cat([sweep[None], _newton_candidates(plan, f)]))
        )
        f = convergence.keep(f, following)
    return Transport(plan.to(cost.dtype), convergence.error, count)


@torch.no_grad()
def ipot(cost: Tensor, epsilon: float, iterations: int) -> Transport:
    """Inexact proximal point towards the unregularised plan (Xie et al. 2018, arXiv:1802.04307). [n, m].

    Each step solves argmin <P, cost> + epsilon KL(P || P before) by one sweep. Read in
    LiqunChen0606/Graph-Optimal-Transport, OT_torch_.py (IPOT): epsilon = beta = 0.5, 20 to 50 steps. Here in
    the log domain, and stopped early when the marginals hold.
    """
    n, m = cost.shape
    scaled = -cost.double() / epsilon
    log_plan, g = torch.zeros_like(scaled), scaled.new_full((m,), -math.log(m))
    convergence = _Convergence(scaled, iterations)
    for count in range(1, iterations + 1):
        kernel = scaled + log_plan
        f = -math.log(n) - torch.logsumexp(kernel + g, dim=1)
        g = -math.log(m) - torch.logsumexp(kernel + f[:, None], dim=0)
        log_plan = convergence.keep(log_plan, kernel + f[:, None] + g)
        is_checked = count % CHECK_EVERY == 0 or count == iterations
        if is_checked and convergence.stops(count, log_plan.exp()):
            break
    return Transport(log_plan.exp().to(cost.dtype), convergence.error, count)


def may_look(x: Tensor) -> bool:
    """Returns whether the host may look at a value without waiting, and torch.compile is not at work."""
    return x.device.type in LOOKS_AT and not torch.compiler.is_compiling()


def _make_plan(scaled: Tensor, f: Tensor) -> Tensor:
    """The plan of a row potential, whose columns hold. On a GPU as a softmax: 3 launches instead of 14."""
    if may_look(scaled):
        return torch.exp(scaled + f[:, None] + _column_potential(scaled, f))
    return (scaled + f[:, None]).softmax(dim=0) / scaled.shape[1]


def _marginal_error(plan: Tensor) -> Tensor:
    rows, columns = plan.sum(dim=1) - 1 / len(plan), plan.sum(dim=0) - 1 / plan.shape[1]
    return rows.abs().sum() + columns.abs().sum()


def _column_potential(scaled: Tensor, f: Tensor) -> Tensor:
    """The g that makes every column sum 1/m. [n, m], [..., n] -> [..., m]."""
    return -math.log(scaled.shape[1]) - torch.logsumexp(scaled + f[..., None], dim=-2)


def _newton_candidates(plan: Tensor, f: Tensor) -> Tensor:
    """Damped Newton's steps from f, whole and shortened; one that fails stays at f. [n, m], [n] -> [k, n]."""
    n, m = plan.shape
    rows = plan.sum(dim=1)
    hessian = torch.diag(rows) - plan @ plan.T * m + 1 / n**2  # the last term takes up constant shifts
    damping = _make_damping(plan.device)[:, None, None] + TINY
    factor = torch.linalg.cholesky_ex(hessian + damping * torch.diag(rows))[0]
    residual = (1 / n - rows)[:, None].expand(len(DAMPING), -1, 1)
    steps = torch.cholesky_solve(residual, factor)[..., 0].nan_to_num(0, 0, 0)
    return torch.cat([f + steps, f + 0.3 * steps])


def _pick_best(scaled: Tensor, candidates: Tensor) -> Tensor:
    """The candidate with the highest semi-dual. [n, m], [k, n] -> [n]."""
    value = candidates.mean(dim=1) + _column_potential(scaled, candidates).mean(dim=1)
    best = value.nan_to_num(-math.inf, -math.inf, -math.inf).argmax()
    return candidates.index_select(0, best[None])[0]


@cache
def _make_damping(device: torch.device) -> Tensor:
    """DAMPING on a device [k], once: the copy waits for a GPU."""
    return torch.tensor(DAMPING, dtype=torch.float64, device=device)
