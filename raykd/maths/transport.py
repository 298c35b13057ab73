"""Optimal transport between two equally weighted sets: Sinkhorn in the log domain, and IPOT.

Legend: n rows of weight 1/n, m columns of weight 1/m. `cost` [n, m] is any real cost; `epsilon` is in its
units. A marginal error is sum |row sums - 1/n| + sum |column sums - 1/m|, between 0 and 4. Plans carry no
gradient, and are computed in float64 whatever the cost's dtype.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-4  # of the marginal error
SWEEPS = 10  # plain Sinkhorn sweeps before Newton's steps
CHECK_EVERY = 5  # sweeps between two checks of the error, each of which waits for the device
DAMPING = (0.0, 1e-6, 1e-4, 1e-2, 1e-1)  # of Newton's steps, relative to the row sums
TINY = 1e-14  # keeps the undamped matrix positive definite


class Transport(NamedTuple):
    """A plan and how far to trust it."""

    plan: Tensor  # [n, m], non-negative, the cost's dtype
    error: float  # marginal error of the plan
    iterations: int  # used
    converged: bool  # error < TOLERANCE


@torch.no_grad()
def sinkhorn(cost: Tensor, epsilon: float, iterations: int) -> Transport:
    """Returns argmin <P, cost> - epsilon H(P), P with these marginals (Cuturi 2013, arXiv:1306.0895). [n, m].

    Ten sweeps in the log domain. Where these are not enough (small epsilon, close ties: plain sweeps may then
    need 10^5), Newton's steps on the semi-dual sum f/n + sum g(f)/m go on, g being the sweep's other half;
    of several damped steps and the plain sweep the one with the highest semi-dual is taken, so none is worse
    than the sweep. The problem and its solution are Sinkhorn's; the steps are this file's own.
    """
    scaled = -cost.double() / epsilon
    f = scaled.new_zeros(len(cost))
    for count in range(1, iterations + 1):
        plan = torch.exp(scaled + f[:, None] + _column_potential(scaled, f))
        if count == iterations or count > SWEEPS or count % CHECK_EVERY == 0:
            error = _marginal_error(plan)
            if error < TOLERANCE or count == iterations:
                break
        sweep = f - math.log(len(cost)) - plan.sum(dim=1).log()
        f = (
            sweep
            if count <= SWEEPS
            else _pick_best(scaled, torch.cat([sweep[None], _newton_candidates(plan, f)]))
        )
    return Transport(plan.to(cost.dtype), error, count, error < TOLERANCE)


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
    for count in range(1, iterations + 1):
        kernel = scaled + log_plan
        f = -math.log(n) - torch.logsumexp(kernel + g, dim=1)
        g = -math.log(m) - torch.logsumexp(kernel + f[:, None], dim=0)
        log_plan = kernel + f[:, None] + g
        if count % CHECK_EVERY == 0 or count == iterations:
            error = _marginal_error(log_plan.exp())
            if error < TOLERANCE:
                break
    return Transport(log_plan.exp().to(cost.dtype), error, count, error < TOLERANCE)


def _marginal_error(plan: Tensor) -> float:
    rows, columns = plan.sum(dim=1) - 1 / len(plan), plan.sum(dim=0) - 1 / plan.shape[1]
    return float(rows.abs().sum() + columns.abs().sum())


def _column_potential(scaled: Tensor, f: Tensor) -> Tensor:
    """The g that makes every column sum 1/m. [n, m], [..., n] -> [..., m]."""
    return -math.log(scaled.shape[1]) - torch.logsumexp(scaled + f[..., None], dim=-2)


def _newton_candidates(plan: Tensor, f: Tensor) -> Tensor:
    """Damped Newton's steps from f, whole and shortened; one that fails stays at f. [n, m], [n] -> [k, n]."""
    n, m = plan.shape
    rows = plan.sum(dim=1)
    hessian = torch.diag(rows) - plan @ plan.T * m + 1 / n**2  # the last term takes up constant shifts
    damping = plan.new_tensor(DAMPING)[:, None, None] + TINY
    factor = torch.linalg.cholesky_ex(hessian + damping * torch.diag(rows))[0]
    residual = (1 / n - rows)[:, None].expand(len(DAMPING), -1, 1)
    steps = torch.cholesky_solve(residual, factor)[..., 0].nan_to_num(0, 0, 0)
    return torch.cat([f + steps, f + 0.3 * steps])


def _pick_best(scaled: Tensor, candidates: Tensor) -> Tensor:
    """The candidate with the highest semi-dual. [n, m], [k, n] -> [n]."""
    value = candidates.mean(dim=1) + _column_potential(scaled, candidates).mean(dim=1)
    return candidates[value.nan_to_num(-math.inf, -math.inf, -math.inf).argmax()]
