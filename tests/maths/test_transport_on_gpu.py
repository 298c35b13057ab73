"""The solvers as they run on a GPU, where the host does not look: the plans that they give where it does."""

import pytest
import torch
import torch.nn.functional as F

from raykd.maths import transport


@pytest.mark.parametrize("solver", [transport.sinkhorn, transport.ipot])
@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.5])
def test_without_a_look_the_plan_is_the_same(
    monkeypatch: pytest.MonkeyPatch, solver: object, epsilon: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    centres, noise = (torch.randn(32, 16, generator=generator) for _ in range(2))
    teacher = F.normalize(centres[torch.arange(32) % 8] + noise, dim=1)
    student = F.normalize(teacher + 0.2 * torch.randn(32, 16, generator=generator), dim=1)
    cost = 1 - student @ teacher.T
    seen = solver(cost, epsilon, 50)  # type: ignore[operator]
    monkeypatch.setattr(transport, "LOOKS_AT", ())
    unseen = solver(cost, epsilon, 50)  # type: ignore[operator]
    torch.testing.assert_close(unseen.plan, seen.plan, rtol=1e-5, atol=1e-9)
    assert unseen.iterations >= seen.iterations and unseen.converged == seen.converged
