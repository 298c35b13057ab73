"""WCoRD: transport plans against scipy, the textbook and their limits; a critic that is never too steep."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.testing import assert_close

from raykd.contract.synthetic_batch import CONTEXT, make_batch
from raykd.maths import lipschitz, transport
from raykd.methods import wcord
from raykd.spec import Range, collect_dimensions

EPSILON = collect_dimensions(wcord.Config)["epsilon"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(normal(*shape, seed=seed), dim=1)


def costs(n: int, seed: int) -> dict[str, Tensor]:
    """Cosine costs of features at random, nearly equal, in clusters, in the plane; uniform ones; ties."""
    labels = torch.arange(n) % 10
    other = labels[torch.randperm(n, generator=torch.Generator().manual_seed(seed))] // 2
    centres, a, b = unit(10, 32, seed=seed), normal(n, 32, seed=seed + 1), normal(n, 32, seed=seed + 2)
    return {
        "random": wcord.cosine_cost(a, b),
        "close": wcord.cosine_cost(a, a + 0.3 * b),
        "clusters": wcord.cosine_cost(centres[labels] + 0.02 * a, centres[other] + 0.02 * b),
        "plane": wcord.cosine_cost(a[:, :2], b[:, :2]),
        "uniform": torch.rand(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2,
        "ties": (normal(n, n, seed=seed) > 0).double() * 2,
        "one far": torch.diag(torch.tensor([2.0] + [0.0] * (n - 1))).double(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 6, 16, 64])
def test_sinkhorn_converges_over_the_whole_range_of_epsilon(n: int) -> None:
    assert isinstance(EPSILON, Range) and (EPSILON.low, EPSILON.high) == (0.02, 0.5)
    for seed in range(3):
        for name, cost in costs(n, seed).items():
            for epsilon in np.geomspace(EPSILON.low, EPSILON.high, 5):
                result = transport.sinkhorn(cost.float(), float(epsilon), wcord.Config().iterations)
                plan = result.plan.double()
                error = (plan.sum(0) - 1 / n).abs().sum() + (plan.sum(1) - 1 / n).abs().sum()
                assert result.converged and error < 1e-4, f"{name}, {epsilon = }, {result[1:]}"
                assert abs(float(error) - result.error) < 1e-5


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.5])
def test_the_entropic_plan_is_optimal(epsilon: float) -> None:
    """plan = a_i exp(-C_ij / epsilon) b_j with the right marginals is the one solution (Cuturi 2013)."""
    for cost in costs(12, 5).values():
        plan = transport.sinkhorn(cost, epsilon, 100).plan
        scaling = plan.log() + cost / epsilon
        rows, columns = scaling.mean(1, keepdim=True), scaling.mean(0, keepdim=True)
        assert_close(scaling, rows + columns - scaling.mean(), rtol=0, atol=1e-6)


def test_sinkhorn_is_the_textbook_iteration() -> None:
    cost = costs(7, 0)["random"][:, :5]
    kernel, b = np.exp(-cost.numpy() / 0.3), np.ones(5)
    for _ in range(2000):
        a = 1 / 7 / (kernel @ b)
        b = 1 / 5 / (kernel.T @ a)
    expected = torch.from_numpy(a[:, None] * kernel * b)
    assert_close(transport.sinkhorn(cost, 0.3, 50).plan, expected, rtol=0, atol=1e-5)


def test_plans_tend_to_the_best_assignment() -> None:
    for seed in range(4):
        cost = costs(9, seed)["uniform"]
        rows, columns = linear_sum_assignment(cost.numpy())
        best = float(cost[rows, columns].mean())
        losses = [
            float(wcord.primal_loss(cost, transport.sinkhorn(cost, e, 100).plan))
            for e in (0.5, 0.1, 0.02, 0.002)
        ]
        assert losses == sorted(losses, reverse=True) and best - 1e-4 < losses[-1] < best + 1e-3
        assert losses[-2] < best + 0.02 * math.log(9), "entropic bound"
        assert float(wcord.primal_loss(cost, transport.ipot(cost, 0.1, 5000).plan)) == pytest.approx(
            best, abs=1e-2
        )


def test_ipot_is_the_released_iteration() -> None:
    """LiqunChen0606/Graph-Optimal-Transport, OT_torch_.py, IPOT: not in the log domain."""
    cost = costs(6, 0)["random"].numpy()
    plan, sigma, kernel = np.ones((6, 6)), np.ones(6) / 6, np.exp(-cost / 0.5)
    for _ in range(4):
        q = kernel * plan
        delta = 1 / (6 * (q @ sigma))
        sigma = 1 / (6 * (q.T @ delta))
        plan = delta[:, None] * q * sigma
    assert_close(
        transport.ipot(torch.from_numpy(cost), 0.5, 4).plan, torch.from_numpy(plan), rtol=1e-9, atol=0
    )


def test_an_unfinished_plan_says_so() -> None:
    cost = costs(16, 0)["clusters"]
    for solve in (transport.sinkhorn, transport.ipot):
        result = solve(cost, 0.02, 3)
        assert not result.converged and result.error > 1e-4 and result.iterations == 3


@pytest.mark.parametrize("solver", ["sinkhorn", "ipot"])
def test_wcord_says_once_that_a_plan_is_unfinished(solver: Literal["sinkhorn", "ipot"]) -> None:
    config = wcord.Config(negatives=16, iterations=1, epsilon=0.02, solver=solver)
    method = wcord.Method(config, CONTEXT)
    message = rf"wcord: {solver} did not converge: .* off by \S+ after 1 iterations at epsilon = 0\.02"
    with pytest.warns(UserWarning, match=message):
        method(make_batch())
    method(make_batch())


def test_the_primal_loss_teaches_the_student_alone_and_not_through_the_plan() -> None:
    torch.manual_seed(0)
    method = wcord.Method(wcord.Config(negatives=16), CONTEXT)
    method(make_batch())["primal"].backward()
    assert all(w.grad is None or not w.grad.any() for w in method.teacher_head.parameters())
    assert all(w.grad is not None and w.grad.any() for w in method.student_head.parameters())
    student, teacher = normal(4, 3).requires_grad_(), normal(4, 3, seed=1)
    plan = transport.sinkhorn(wcord.cosine_cost(student, teacher), 0.1, 50).plan
    assert torch.autograd.gradcheck(lambda s: wcord.primal_loss(wcord.cosine_cost(s, teacher), plan), student)


def max_slope(method: wcord.Method, moved: str) -> float:
    """The largest |f(x, z) - f(y, z)| / |x - y| that gradient ascent finds over unit x, y, z."""
    heads = {"student": method.student_head, "teacher": method.teacher_head}
    widths = {"student": 10, "teacher": 14}
    fixed = "teacher" if moved == "student" else "student"
    torch.manual_seed(1)
    x, z = torch.randn(32, widths[moved]), torch.randn(32, widths[fixed])
    points = [
        x.requires_grad_(),
        (x + 0.1 * torch.randn_like(x)).detach().requires_grad_(),
        z.requires_grad_(),
    ]
    optimizer, ratio = torch.optim.Adam(points, lr=0.05), torch.zeros(32)
    for _ in range(100):
        x, y = F.normalize(points[0], dim=1), F.normalize(points[1], dim=1)
        difference = heads[moved](points[0]) - heads[moved](points[1])
        ratio = (difference * heads[fixed](points[2])).sum(dim=1) / (x - y).norm(dim=1).clamp(min=0.02)
        optimizer.zero_grad()
        (-ratio.sum()).backward()
        optimizer.step()
    return float(ratio.detach().max())


@pytest.mark.slow
@pytest.mark.parametrize("critic", ["sn_linear_nonorm", "sn_mlp2"])
@pytest.mark.parametrize("moved", ["student", "teacher"])
def test_no_search_finds_a_critic_steeper_than_1(critic: wcord.Critic, moved: str) -> None:
    torch.manual_seed(0)
    for dim in (4, 24):
        config = wcord.Config(critic=critic, dim=dim, negatives=16, spectral_norm="bound")
        method = wcord.Method(config, CONTEXT)
        student, teacher = method.student_head.first, method.teacher_head.first
        weight = 3 * torch.randn(dim, 10) @ torch.randn(10, 10)  # what training may make of it
        student.parametrizations.weight.original.data = weight
        teacher.parametrizations.weight.original.data = weight @ torch.eye(10, 14)
        for head in (method.student_head, method.teacher_head):
            if head.second is not None:
                head.second.parametrizations.weight.original.data = 3 * torch.eye(dim)
        slope = max_slope(method, moved)
        assert (0.95 if critic == "sn_linear_nonorm" else 0.4) < slope < 1 + 1e-4
        assert (method.memory.teacher.norm(dim=1) < 1 + 1e-5).all()


def test_the_search_finds_what_is_steeper() -> None:
    torch.manual_seed(0)
    assert (
        max_slope(wcord.Method(wcord.Config(critic="sn_linear_l2", dim=8, negatives=16), CONTEXT), "student")
        > 1.5
    )


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (128, 256), (1, 1)])
def test_the_spectral_bound_lies_close_above_the_norm(shape: tuple[int, int]) -> None:
    for scale in (1e-3, 1.0, 1e3):
        weight = scale * normal(*shape)
        bound, true = lipschitz.spectral_bound(weight), torch.linalg.matrix_norm(weight, 2)
        assert 1 - 1e-12 <= float(bound / true) <= min(shape) ** (1 / 1024) + 1e-9
    weight = normal(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lipschitz.spectral_bound, weight)
    assert float(
        torch.linalg.matrix_norm(lipschitz.SpectralBoundNorm()(torch.ones(4, 4)), 2)
    ) == pytest.approx(1)


def test_a_critic_is_normalised_by_plain_power_iterations() -> None:
    """As torch.nn.utils.parametrizations.spectral_norm: u <- W v, v <- W^T u, the weight over u W v."""
    torch.manual_seed(0)
    method = wcord.Method(wcord.Config(negatives=16), CONTEXT)
    parametrized: Any = method.student_head.first.parametrizations.weight
    weight, v = parametrized.original.detach().double(), parametrized[0]._v.double()
    for _ in range(2):
        method.student_head(torch.randn(3, 10))
        u = weight @ v / (weight @ v).norm()
        v = weight.T @ u / (weight.T @ u).norm()
    layer: Any = method.student_head.first.eval()
    assert_close(layer.weight.detach().double(), weight / (u @ weight @ v), rtol=1e-5, atol=1e-7)


def test_a_power_iteration_comes_to_norm_1() -> None:
    torch.manual_seed(0)
    layer = lipschitz.make_linear(20, 12, "power")
    for _ in range(200):
        layer(torch.zeros(1, 20))
    assert isinstance(layer, nn.Linear)
    assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1, abs=1e-3)
