"""PCKD and MCLD: official numbers (tests/methods/golden/README.md), and definitions written in loops."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support.oracles import kl_divergence
from test_golden import Golden, assert_matches
from torch import Tensor
from torch.testing import assert_close

from raykd import methods
from raykd.contract.synthetic_batch import CONTEXT, STUDENT, make_batch
from raykd.methods import dcd, mcld, msdcrd, pckd


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_golden_pckd_category_loss() -> None:
    g = Golden("pckd")
    student = g.unit("student_embedding", "student_head") @ g["student_centres"].T
    teacher = g.unit("student_embedding", "teacher_head") @ g["teacher_centres"].T
    temperatures = g["temperature"].item(), g["base_temperature"].item()
    loss = pckd.category_loss(student, teacher, g["labels_per_view"], *temperatures)
    assert_matches(loss, g["category_loss_per_view"])
    loss.sum().backward()
    for key in [key for key in g if key.startswith("grad_")]:
        assert_matches(g[key.removeprefix("grad_")].grad, g[key])


def test_golden_pckd_preview_centre_and_feature() -> None:
    g = Golden("pckd")
    hardness = pckd.difficulty(g["student_logits"], g["labels"])
    assert_matches(hardness, g["difficulty"])
    preview = pckd.Growth(growth=g["growth"].item())
    assert_matches(preview.weight(hardness, (g["epoch"] - 1) / 240), g["preview_weight"])
    heads = [(g[f"{net}_centres"], g[f"{net}_centre_bias"]) for net in ("student", "teacher")]
    assert_matches(pckd.centre_loss(*heads), g["centre_alignment"])
    assert_matches(
        pckd.feature_loss(g["predicted_embedding"], g["teacher_embedding"]), g["feature_alignment"]
    )


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
    student, teacher = (normal(3, 4), normal(3)), (normal(3, 4, seed=1), normal(3, seed=1))
    numbers = [[*w.flatten().tolist(), *b.tolist()] for w, b in (student, teacher)]
    expected = sum((a - b) ** 2 for a, b in zip(*numbers, strict=True)) / 15
    assert pckd.centre_loss(student, teacher).item() == pytest.approx(expected)


PREVIEWS = [pckd.Growth(), pckd.Curriculum(), pckd.Linear(), pckd.Cosine()]


@pytest.mark.parametrize("preview", PREVIEWS, ids=lambda p: p.kind)
def test_a_preview_takes_in_ever_harder_images(preview: pckd.Preview) -> None:
    hardness = torch.linspace(0, 5, 101).double()
    rows = torch.stack([preview.weight(hardness, k) for k in torch.arange(20) / 20])
    assert rows.ge(0).all() and rows.le(1).all()
    assert (rows[1:] >= rows[:-1]).all(), "no image loses weight"
    assert (rows[:, 1:] <= rows[:, :-1]).all(), "a harder image never weighs more"
    admitted = (rows == 1).sum(dim=1)
    assert admitted[0] == 21 and admitted[-1] > 60, "difficulty 1 at first, above 3 at last"
    beyond = torch.exp(-(hardness**2)) if preview.kind != "curriculum" else torch.zeros(101).double()
    assert_close(rows[0, 21:], beyond[21:])


def test_preview_thresholds_and_off() -> None:
    def admits(preview: pckd.Preview, progress: float, threshold: float) -> None:
        pair = torch.tensor([threshold - 1e-6, threshold + 1e-6], dtype=torch.float64)
        easy, hard = preview.weight(pair, torch.tensor(progress, dtype=torch.float64)).tolist()
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
    assert pckd.Off().weight(torch.tensor([0.0, 9.0]), torch.tensor(0.0)).tolist() == [1, 1]


def test_pckd_weighs_the_upright_kd_and_every_view_of_an_image() -> None:
    """The whole method against its parts, with a hard gate that leaves only some images."""
    context = CONTEXT._replace(student=STUDENT._replace(embedding=14))
    batch = make_batch(rotations=4, context=context)
    torch.manual_seed(0)
    config = pckd.Config(preview=pckd.Curriculum(gate_growth=1.0), kd_temperature=2.0)
    method = pckd.Method(config, context)
    terms = method(batch)
    loss = [
        float(F.cross_entropy(z, y))
        for z, y in zip(batch.student.logits[::4], batch.labels[::4], strict=True)
    ]
    kept = [value <= sum(loss) / 6 for value in loss]
    assert 0 < sum(kept) < 6
    pairs = zip(batch.student.logits[::4], batch.teacher.logits[::4], kept, strict=True)
    kd = sum(kl_divergence(s, t, 2.0) for s, t, keep in pairs if keep) / 6
    assert terms["kd"].item() == pytest.approx(kd, rel=1e-4)
    u = F.normalize(method.student_head(batch.student.embedding), dim=1) @ batch.student.head.weight.T
    v = F.normalize(method.teacher_head(batch.student.embedding), dim=1) @ batch.teacher.head.weight.T
    each = pckd.category_loss(u, v, batch.labels, 4.0, 0.07).tolist()
    category = sum(each[row] for row in range(24) if kept[row // 4]) / 24
    assert terms["category"].item() == pytest.approx(category, rel=1e-4)


def test_pckd_carries_no_gradient_through_its_preview_weights() -> None:
    logits = normal(6, 4).requires_grad_()
    assert not pckd.difficulty(logits, torch.tensor([0, 1, 2, 3, 0, 1])).requires_grad


def test_pckd_refuses_to_align_centres_of_unequal_width() -> None:
    with pytest.raises(ValueError, match=r"pckd: class centres of 10 .* and 14 .*weights/centre = 0"):
        methods.make("pckd", CONTEXT)
    torch.manual_seed(0)
    terms = pckd.Method(pckd.Config(weights=pckd.Weights(centre=0)), CONTEXT)(make_batch(rotations=4))
    assert terms["centre"] == 0 and all(term.isfinite() for term in terms.values())


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
        similarity += kl_divergence(scores[i, others], target[i, others], 1.0) / 6
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
    batch = make_batch()
    s, t = (F.normalize(v.logits, dim=1) for v in (batch.student, batch.teacher))
    same = batch.labels[:, None] == batch.labels
    for sample, expected in {
        "student_anchor": mcld.multi_positive_loss(s @ t.T / 0.5, same),
        "teacher_anchor": mcld.multi_positive_loss(t @ s.T / 0.5, same),
        "similarity": mcld.similarity_loss(s @ s.T / 0.5, t @ t.T / 0.5, 0),
    }.items():
        config = mcld.Config.model_validate({"sample": sample, "temperature": 0.5})
        assert_close(mcld.Method(config, CONTEXT)(batch)["sample"], expected)
    used = torch.tensor([k in batch.labels for k in range(5)])
    assert not used.all()
    expected = mcld.category_loss(batch.student.logits, batch.teacher.logits, 1.0, used)
    for warm_up, part in [(0.0, 1.0), (1.0, 0.5), (0.5, 1.0)]:
        config = mcld.Config(classes="present", warm_up=warm_up)
        assert_close(mcld.Method(config, CONTEXT)(batch)["category"], part * expected)


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


def test_dcd_whose_scalars_do_not_learn_keeps_its_first_scale() -> None:
    """As the released ImageNet code, whose optimiser has the two heads alone: the scale stays e."""
    torch.manual_seed(0)
    method, batch = dcd.Method(dcd.Config(learnable=False), CONTEXT), make_batch()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(3):
        optimizer.zero_grad()
        sum(method(batch).values()).backward()
        optimizer.step()
    s, t = (
        F.normalize(head(x), dim=1).detach()
        for head, x in (
            (method.student_head, batch.student.embedding),
            (method.teacher_head, batch.teacher.embedding),
        )
    )
    scores = [[math.e * float(a @ b) for b in t] for a in s]
    loss = sum(math.log(sum(map(math.exp, row))) - row[i] for i, row in enumerate(scores)) / len(scores)
    assert_close(method(batch)["contrast"].item(), loss, rtol=1e-5, atol=0)
