"""PCKD, WCoRD, MCLD, MSDCRD: official numbers (tests/golden/README.md), and definitions written in loops."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from steps import SETTING, STUDENT, TEACHER, batch, divergence
from test_golden import Golden, close
from torch import Tensor, nn
from torch.testing import assert_close

from raykd import methods
from raykd.maths import lipschitz, transport
from raykd.methods import mcld, msdcrd, pckd, wcord
from raykd.space import Range, declared

EPSILON = declared(wcord.Config)["epsilon"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(normal(*shape, seed=seed), dim=1)


# PCKD


def test_golden_pckd_category_loss() -> None:
    g = Golden("pckd")
    student = g.unit("student_embedding", "student_head") @ g["student_centres"].T
    teacher = g.unit("student_embedding", "teacher_head") @ g["teacher_centres"].T
    temperatures = g["temperature"].item(), g["base_temperature"].item()
    loss = pckd.category_loss(student, teacher, g["labels_per_view"], *temperatures)
    close(loss, g["category_loss_per_view"])
    loss.mean().backward()
    for key in [key for key in g if key.startswith("grad_")]:
        close(g[key.removeprefix("grad_")].grad, g[key])


def test_golden_pckd_preview_centre_and_feature() -> None:
    g = Golden("pckd")
    hardness = pckd.difficulty(g["student_logits"], g["labels"])
    close(hardness, g["difficulty"])
    preview = pckd.Growth(growth=g["growth"].item())
    close(preview.weight(hardness, (g["epoch"].item() - 1) / 240), g["preview_weight"])
    heads = [(g[f"{net}_centres"], g[f"{net}_centre_bias"]) for net in ("student", "teacher")]
    close(pckd.centre_loss(*heads), g["centre_alignment"])
    close(pckd.feature_loss(g["predicted_embedding"], g["teacher_embedding"]), g["feature_alignment"])


def test_pckd_category_loss_is_that_of_loops() -> None:
    p, q, labels, tau = normal(5, 3), normal(5, 3, seed=1), torch.tensor([0, 1, 0, 2, 1]), 0.7
    rows, owner = [*p, *q], [*labels.tolist(), *labels.tolist()]
    losses = [0.0] * 5
    for i, row in enumerate(rows):
        others = [j for j in range(10) if j != i]
        total = sum(math.exp(row @ rows[j] / tau) for j in others)
        positive = [j for j in others if owner[j] == owner[i]]
        log = [float(row @ rows[j] / tau) - math.log(total) for j in positive]
        losses[i % 5] -= tau / 0.07 * sum(log) / len(log)
    assert_close(
        pckd.category_loss(p, q, labels, tau, 0.07), torch.tensor(losses).double(), rtol=1e-4, atol=0
    )


def test_pckd_centre_loss_of_equal_widths() -> None:
    ours, theirs = (normal(3, 4), normal(3)), (normal(3, 4, seed=1), normal(3, seed=1))
    numbers = [[*w.flatten().tolist(), *b.tolist()] for w, b in (ours, theirs)]
    expected = sum((a - b) ** 2 for a, b in zip(*numbers, strict=True)) / 15
    assert pckd.centre_loss(ours, theirs).item() == pytest.approx(expected)


PREVIEWS = [pckd.Growth(), pckd.Curriculum(), pckd.Linear(), pckd.Cosine()]


@pytest.mark.parametrize("preview", PREVIEWS, ids=lambda p: p.kind)
def test_a_preview_takes_in_ever_harder_images(preview: pckd.Preview) -> None:
    hardness = torch.linspace(0, 5, 101).double()
    rows = torch.stack([preview.weight(hardness, k / 20) for k in range(20)])
    assert rows.ge(0).all() and rows.le(1).all()
    assert (rows[1:] >= rows[:-1]).all(), "no image loses weight"
    assert (rows[:, 1:] <= rows[:, :-1]).all(), "a harder image never weighs more"
    admitted = (rows == 1).sum(dim=1)
    assert admitted[0] == 21 and admitted[-1] > 60, "difficulty 1 at first, above 3 at last"
    beyond = torch.exp(-(hardness**2)) if preview.kind != "curriculum" else torch.zeros(101).double()
    assert_close(rows[0, 21:], beyond[21:])


def test_preview_thresholds_and_off() -> None:
    def admits(preview: pckd.Preview, progress: float, threshold: float) -> None:
        pair = torch.tensor([threshold - 1e-6, threshold + 1e-6]).double()
        easy, hard = preview.weight(pair, progress).tolist()
        assert easy == 1 and hard < 1

    for progress, number in [(0.0, 1), (149 / 240, 150), (239 / 240, 240)]:
        admits(pckd.Growth(growth=1.015), progress, 1.015**number)
        admits(pckd.Curriculum(gate_growth=1.015), progress, 1.015**number)
    linear, cosine = pckd.Linear(linear_start=1.2, linear_end=2), pckd.Cosine(cosine_start=1.2, cosine_end=2)
    for progress, line, curve in [
        (0, 1.2, 1.2),
        (0.25, 1.4, 1.2 + 0.8 * (0.5 - math.sqrt(0.125))),
        (0.5, 1.6, 1.6),
    ]:
        admits(linear, progress, line)
        admits(cosine, progress, curve)
    assert pckd.Off().weight(torch.tensor([0.0, 9.0]), 0.0).tolist() == [1, 1]


def test_pckd_weighs_the_upright_kd_and_every_view_of_an_image() -> None:
    """The whole method against its parts, with a hard gate that leaves only some images."""
    setting = SETTING._replace(student=STUDENT._replace(embedding=14))
    step = batch(rotations=4, setting=setting)
    torch.manual_seed(0)
    config = pckd.Config(preview=pckd.Curriculum(gate_growth=1.0), kd_temperature=2.0)
    method = pckd.Method(config, setting)
    terms = method(step)
    loss = [
        float(F.cross_entropy(z, y)) for z, y in zip(step.student.logits[::4], step.labels[::4], strict=True)
    ]
    kept = [value <= sum(loss) / 6 for value in loss]
    assert 0 < sum(kept) < 6
    pairs = zip(step.student.logits[::4], step.teacher.logits[::4], kept, strict=True)
    kd = sum(divergence(s, t, 2.0) for s, t, keep in pairs if keep) / 6
    assert terms["kd"].item() == pytest.approx(kd, rel=1e-4)
    u = F.normalize(method.student_head(step.student.embedding), dim=1) @ step.student.head.weight.T
    v = F.normalize(method.teacher_head(step.student.embedding), dim=1) @ step.teacher.head.weight.T
    each = pckd.category_loss(u, v, step.labels, 4.0, 0.07)
    category = sum(float(each[row]) for row in range(24) if kept[row // 4]) / 24
    assert terms["category"].item() == pytest.approx(category, rel=1e-4)


def test_pckd_carries_no_gradient_through_its_preview_weights() -> None:
    logits = normal(6, 4).requires_grad_()
    assert not pckd.difficulty(logits, torch.tensor([0, 1, 2, 3, 0, 1])).requires_grad


def test_pckd_refuses_to_align_centres_of_unequal_width() -> None:
    with pytest.raises(ValueError, match=r"pckd: class centres of 10 .* and 14 .*weights/centre = 0"):
        methods.make("pckd", SETTING)
    torch.manual_seed(0)
    terms = pckd.Method(pckd.Config(weights=pckd.Weights(centre=0)), SETTING)(batch(rotations=4))
    assert terms["centre"] == 0 and all(term.isfinite() for term in terms.values())


# WCoRD


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


@pytest.mark.parametrize("n", [2, 3, 6, 16, 64])
def test_sinkhorn_converges_over_the_whole_range_of_epsilon(n: int) -> None:
    assert isinstance(EPSILON, Range) and (EPSILON.low, EPSILON.high) == (0.02, 0.5)
    for seed in range(3):
        for name, cost in costs(n, seed).items():
            for epsilon in np.geomspace(EPSILON.low, EPSILON.high, 5):
                found = transport.sinkhorn(cost.float(), float(epsilon), wcord.Config().iterations)
                plan = found.plan.double()
                error = (plan.sum(0) - 1 / n).abs().sum() + (plan.sum(1) - 1 / n).abs().sum()
                assert found.converged and error < 1e-4, f"{name}, {epsilon = }, {found[1:]}"
                assert abs(float(error) - found.error) < 1e-5


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
        found = [
            float(wcord.primal_loss(cost, transport.sinkhorn(cost, e, 100).plan))
            for e in (0.5, 0.1, 0.02, 0.002)
        ]
        assert found == sorted(found, reverse=True) and best - 1e-4 < found[-1] < best + 1e-3
        assert found[-2] < best + 0.02 * math.log(9), "entropic bound"
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
        found = solve(cost, 0.02, 3)
        assert not found.converged and found.error > 1e-4 and found.iterations == 3
    method = wcord.Method(wcord.Config(negatives=16, iterations=1, epsilon=0.02), SETTING)
    with pytest.warns(
        UserWarning, match=r"wcord: Sinkhorn did not converge.*1 iterations at epsilon = 0\.02"
    ):
        method(batch())
    method(batch())  # said once


def test_the_primal_loss_teaches_the_student_alone_and_not_through_the_plan() -> None:
    torch.manual_seed(0)
    method = wcord.Method(wcord.Config(negatives=16), SETTING)
    method(batch())["primal"].backward()
    assert all(w.grad is None or not w.grad.any() for w in method.teacher_head.parameters())
    assert all(w.grad is not None and w.grad.any() for w in method.student_head.parameters())
    student, teacher = normal(4, 3).requires_grad_(), normal(4, 3, seed=1)
    plan = transport.sinkhorn(wcord.cosine_cost(student, teacher), 0.1, 50).plan
    assert torch.autograd.gradcheck(lambda s: wcord.primal_loss(wcord.cosine_cost(s, teacher), plan), student)


def steepest(method: wcord.Method, moved: str) -> float:
    """The largest |f(x, z) - f(y, z)| / |x - y| that gradient ascent finds over unit x, y, z."""
    heads = {"student": method.student_head, "teacher": method.teacher_head}
    widths = {"student": 10, "teacher": 14}
    fixed = "teacher" if moved == "student" else "student"
    torch.manual_seed(1)
    x, z = torch.randn(64, widths[moved]), torch.randn(64, widths[fixed])
    points = [
        x.requires_grad_(),
        (x + 0.1 * torch.randn_like(x)).detach().requires_grad_(),
        z.requires_grad_(),
    ]
    optimizer, ratio = torch.optim.Adam(points, lr=0.05), torch.zeros(64)
    for _ in range(150):
        x, y = F.normalize(points[0], dim=1), F.normalize(points[1], dim=1)
        difference = heads[moved](points[0]) - heads[moved](points[1])
        ratio = (difference * heads[fixed](points[2])).sum(dim=1) / (x - y).norm(dim=1).clamp(min=0.02)
        optimizer.zero_grad()
        (-ratio.sum()).backward()
        optimizer.step()
    return float(ratio.max())


@pytest.mark.parametrize("critic", ["sn_linear_nonorm", "sn_mlp2"])
@pytest.mark.parametrize("moved", ["student", "teacher"])
def test_no_search_finds_a_critic_steeper_than_1(critic: wcord.Critic, moved: str) -> None:
    torch.manual_seed(0)
    for dim in (8, 128):
        method = wcord.Method(wcord.Config(critic=critic, dim=dim, negatives=16), SETTING)
        student, teacher = method.student_head.first, method.teacher_head.first
        weight = 3 * torch.randn(dim, 10) @ torch.randn(10, 10)  # what training may make of it
        student.parametrizations.weight.original.data = weight
        teacher.parametrizations.weight.original.data = weight @ torch.eye(10, 14)
        found = steepest(method, moved)
        assert (0.95 if critic == "sn_linear_nonorm" else 0.1) < found < 1 + 1e-4
        assert (method.memory.teacher.norm(dim=1) < 1 + 1e-5).all()


def test_the_search_finds_what_is_steeper() -> None:
    torch.manual_seed(0)
    assert (
        steepest(wcord.Method(wcord.Config(critic="sn_linear_l2", dim=8, negatives=16), SETTING), "student")
        > 1.5
    )


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (128, 256), (1, 1)])
def test_the_spectral_bound_lies_close_above_the_norm(shape: tuple[int, int]) -> None:
    for scale in (1e-3, 1.0, 1e3):
        weight = (scale * normal(*shape)).requires_grad_()
        bound, true = lipschitz.spectral_bound(weight), torch.linalg.matrix_norm(weight, 2)
        assert 1 - 1e-12 <= float(bound / true) <= min(shape) ** (1 / 1024) + 1e-9
    weight = normal(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lipschitz.spectral_bound, weight)
    assert float(torch.linalg.matrix_norm(lipschitz.Bounded()(torch.ones(4, 4)), 2)) == pytest.approx(1)


def test_a_power_iteration_comes_to_norm_1() -> None:
    torch.manual_seed(0)
    layer = lipschitz.linear(20, 12, "power")
    for _ in range(200):
        layer(torch.zeros(1, 20))
    assert isinstance(layer, nn.Linear)
    assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1, abs=1e-3)


# MCLD


LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def softmax_loss(row: Tensor, positive: int, keys: list[int]) -> float:
    return -float(row[positive]) + math.log(sum(math.exp(row[k]) for k in keys))


@pytest.mark.parametrize("masked", [True, False])
def test_mcld_instance_loss_is_that_of_loops(masked: bool) -> None:
    scores, same = normal(6, 6), LABELS[:, None] == LABELS
    expected = 0.0
    for i in range(6):
        keys = [j for j in range(6) if j == i or not masked or LABELS[j] != LABELS[i]]
        expected += softmax_loss(scores[i], i, keys) / 6
    assert mcld.instance_loss(scores, same, 0, masked).item() == pytest.approx(expected)


def test_mcld_sample_losses_are_those_of_loops() -> None:
    scores, target = normal(6, 6), normal(6, 6, seed=1)
    multi = similarity = 0.0
    for i in range(6):
        positives = [p for p in range(6) if LABELS[p] == LABELS[i]]
        multi += sum(softmax_loss(scores[i], p, list(range(6))) for p in positives) / len(positives) / 6
        others = [j for j in range(6) if j != i]
        similarity += divergence(scores[i, others], target[i, others], 1.0) / 6
    assert mcld.multi_positive_loss(scores, LABELS[:, None] == LABELS).item() == pytest.approx(multi)
    assert mcld.similarity_loss(scores, target, 0).item() == pytest.approx(similarity)


@pytest.mark.parametrize("classes", [[0, 1, 2, 3], [0, 2, 3]])
def test_mcld_category_loss_is_that_of_loops(classes: list[int]) -> None:
    s, t, used = normal(6, 4), normal(6, 4, seed=1), torch.tensor([c in classes for c in range(4)])
    cosines = torch.tensor(
        [[s[:, k] @ t[:, m] / s[:, k].norm() / t[:, m].norm() for m in range(4)] for k in range(4)]
    )
    expected = sum(softmax_loss(cosines[k] / 0.5, k, classes) for k in classes) / len(classes)
    s.requires_grad_()
    loss = mcld.category_loss(s, t, 0.5, used)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert s.grad is not None and s.grad.isfinite().all()


def test_mcld_anchors_classes_and_warm_up() -> None:
    step = batch()
    s, t = (F.normalize(v.logits, dim=1) for v in (step.student, step.teacher))
    same = step.labels[:, None] == step.labels
    for sample, expected in {
        "student_anchor": mcld.multi_positive_loss(s @ t.T / 0.5, same),
        "teacher_anchor": mcld.multi_positive_loss(t @ s.T / 0.5, same),
        "similarity": mcld.similarity_loss(s @ s.T / 0.5, t @ t.T / 0.5, 0),
    }.items():
        config = mcld.Config.model_validate({"sample": sample, "temperature": 0.5})
        assert_close(mcld.Method(config, SETTING)(step)["sample"], expected)
    used = torch.tensor([k in step.labels for k in range(5)])
    assert not used.all()
    expected = mcld.category_loss(step.student.logits, step.teacher.logits, 1.0, used)
    for warm_up, part in [(0.0, 1.0), (1.0, 0.5), (0.5, 1.0)]:
        config = mcld.Config(classes="present", warm_up=warm_up)
        assert_close(mcld.Method(config, SETTING)(step)["category"], part * expected)


# MSDCRD


@pytest.mark.parametrize(
    ("size", "scales", "stride", "num"),
    [(8, 3, "full", 21), (8, 3, "half", 59), (8, 1, "half", 1), (4, 3, "full", 21), (2, 3, "full", 5), (1, 3, "full", 1)],
)  # fmt: skip
def test_regions_are_window_means(size: int, scales: int, stride: msdcrd.Stride, num: int) -> None:
    maps, expected = normal(2, 3, size, size), []
    for window in [size // 2**k for k in range(scales) if size // 2**k]:
        hop = window if stride == "full" else max(1, window // 2)
        corners = range(0, size - window + 1, hop)
        expected += [
            maps[:, :, i : i + window, j : j + window].mean((2, 3)) for i in corners for j in corners
        ]
    found = msdcrd.regions(maps, scales, stride)
    assert found.shape == (2, num, 3)
    assert_close(found, torch.stack(expected, dim=1))


def test_region_weights_of_each_selection() -> None:
    scores = F.one_hot(torch.tensor([[0, 0, 1], [1, 0, 1]]), 2)  # verdicts of three regions of two images
    labels = torch.tensor([0, 0])
    assert msdcrd.region_weights(scores, labels, "teacher_correct").tolist() == [[1, 1, 0], [1, 1, 0]]
    assert msdcrd.region_weights(scores, labels, "weighted").tolist() == [[1, 1, 2], [1, 2, 1]]


def test_msdcrd_losses_are_those_of_loops() -> None:
    x, y, tau = normal(7, 4), normal(7, 4, seed=1), 0.3
    weight, group = torch.tensor([1.0, 2, 0, 1, 1, 0, 2]).double(), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    sample = 0.0
    for n in range(7):
        keys = [m for m in range(7) if m == n or (group[m] != group[n] and weight[m] > 0)]
        row = torch.stack([F.cosine_similarity(x[n], y[m], dim=0) / tau for m in range(7)])
        sample += float(weight[n]) * softmax_loss(row, n, keys) / float(weight.sum())
    assert msdcrd.sample_loss(x, y, weight, group, tau).item() == pytest.approx(sample)
    used, feature = [n for n in range(7) if weight[n] > 0], 0.0
    for k in range(4):
        row = torch.stack([F.cosine_similarity(x[used, k], y[used, m], dim=0) / tau for m in range(4)])
        feature += softmax_loss(row, k, [0, 1, 2, 3]) / 4
    assert msdcrd.feature_loss(x, y, weight, tau).item() == pytest.approx(feature)


def scored(selection: msdcrd.Selection, keys: int = 1024) -> msdcrd.Method:
    torch.manual_seed(0)
    return msdcrd.Method(msdcrd.Config(align="class_scores", selection=selection, keys=keys), SETTING)


def test_the_msdcrd_method_pools_the_larger_map_and_scores_its_regions() -> None:
    step = batch(rotations=4)
    terms, rows = scored("all")(step), []
    for view in (step.student, step.teacher):
        maps = F.adaptive_avg_pool2d(view.pooled, 3)
        assert maps.shape[2:] == (3, 3)
        cells = (
            torch.cat([maps.mean((2, 3))[:, :, None], maps.flatten(2)], dim=2).transpose(1, 2).flatten(0, 1)
        )
        rows.append(cells @ view.head.weight.T + view.head.bias)
    ones, group = torch.ones(240), step.index.repeat_interleave(10)
    assert_close(terms["sample"], msdcrd.sample_loss(*rows, ones, group, 0.1))
    assert_close(terms["feature"], msdcrd.feature_loss(*rows, ones, 0.1))


def test_regions_of_weight_come_first_and_others_are_drawn_anew_each_step() -> None:
    method, weight = scored("all", keys=4), torch.tensor([0, 1, 0, 1, 0, 0, 0, 0, 0.0])
    draws = []
    for _ in range(5):
        draws.append(set(method._choose(weight).tolist()))
        method(batch())
    assert all(len(draw) == 4 and draw >= {1, 3} for draw in draws)
    assert len(set(map(frozenset, draws))) > 1
    assert set(scored("all")._choose(weight).tolist()) == set(range(9))


def test_msdcrd_aligns_channels_only_where_they_differ() -> None:
    same = SETTING._replace(student=STUDENT._replace(embedding=TEACHER.embedding))
    assert methods.make("msdcrd", same).align is None
    assert not list(scored("all").parameters())
    other = SETTING._replace(teacher=TEACHER._replace(classes=6))
    with pytest.raises(ValueError, match=r"5 classes.* 6"):
        msdcrd.Method(msdcrd.Config(align="class_scores"), other)


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "pckd category": lambda x: pckd.category_loss(x, normal(6, 4, seed=1), LABELS, 0.9, 0.07),
    "mcld instance": lambda x: mcld.instance_loss(x @ x.T, LABELS[:, None] == LABELS, 0, True),
    "mcld sample": lambda x: mcld.multi_positive_loss(x @ x.T, LABELS[:, None] == LABELS),
    "mcld similarity": lambda x: mcld.similarity_loss(x @ x.T, normal(6, 6, seed=1), 0),
    "msdcrd sample": lambda x: msdcrd.sample_loss(
        x, normal(6, 4, seed=1), torch.tensor([1, 0, 1, 2, 1, 1]).double(), LABELS, 0.3
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_differences(name: str) -> None:
    assert torch.autograd.gradcheck(LOSSES[name], normal(6, 4).requires_grad_())
