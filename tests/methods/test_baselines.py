"""The baselines: official codes' numbers (tests/methods/golden/README.md), and definitions in loops."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.oracles import kl_divergence
from test_golden import Golden
from torch import Tensor
from torch.testing import assert_close

from raykd import methods, models
from raykd.batch import Head, MethodBatch, MethodContext, OutputShapes
from raykd.contract.synthetic_batch import (
    CONTEXT,
    FITNET_CONTEXT,
    STAGES_CONTEXT,
    make_batch,
    with_stages,
)
from raykd.maths.logits import standardize
from raykd.maths.norm import AnyDeviceSyncBatchNorm
from raykd.methods import at, cc, ckd, dist, fitnet, pkt, reviewkd, rkd, sdd, simkd, sp, vid
from raykd.methods.kd import kd_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_golden_at_and_sp() -> None:
    g = Golden("at")
    g.check(at.attention_loss([g["student_map"]], [g["teacher_map"]]))
    g = Golden("sp")
    g.check(sp.similarity_loss(g["student_map"], g["teacher_map"]))


def test_golden_rkd_and_pkt() -> None:
    g = Golden("rkd")
    pair = g["student_embedding"], g["teacher_embedding"]
    g.check(g["distance_weight"] * rkd.distance_loss(*pair) + g["angle_weight"] * rkd.angle_loss(*pair))
    g = Golden("pkt")
    g.check(pkt.affinity_loss(g["student_embedding"], g["teacher_embedding"]))


def test_golden_dist_and_logit_standardization() -> None:
    g = Golden("dist")
    args = g["student_logits"], g["teacher_logits"], g["temperature"].item()
    g.check(dist.inter_loss(*args) + dist.intra_loss(*args))
    g = Golden("logit_standardization")
    pair = standardize(g["student_logits"]), standardize(g["teacher_logits"])
    g.check(kd_loss(*pair, g["temperature"].item()))


def test_golden_reviewkd_hcl() -> None:
    g = Golden("reviewkd_hcl")
    student, teacher = ([g[f"{net}_map_{k}"] for k in (1, 2)] for net in ("student", "teacher"))
    g.check(reviewkd.context_loss(student, teacher))


def test_maps_of_every_stage_and_of_the_last_are_read() -> None:
    batch = make_batch()
    attention = 0.0
    for s, t in zip(batch.student.maps[1:], batch.teacher.maps[1:], strict=True):
        t = F.adaptive_avg_pool2d(t, s.shape[2])
        for a, b in zip(s, t, strict=True):
            q, p = (a * a).mean(0), (b * b).mean(0)
            attention += float((q / q.norm() - p / p.norm()).square().mean()) / len(s)
    assert_close(methods.make("at", CONTEXT)(batch)["attention"].item(), attention, rtol=1e-5, atol=0)
    expected = sp.similarity_loss(batch.student.maps[-1], batch.teacher.maps[-1])
    assert_close(methods.make("sp", CONTEXT)(batch)["similarity"], expected)


def test_standardized_logits_have_no_mean_and_no_scale() -> None:
    batch = make_batch()
    moved = replace(batch, teacher=batch.teacher._replace(logits=3 * batch.teacher.logits + 7))
    for name in ("kd", "dkd", "dist", "ckd", "mcld"):
        method = methods.make(name, CONTEXT, methods.get_config_class(name)(standardize=True))  # type: ignore[call-arg]
        assert_close(method(moved), method(batch), rtol=1e-4, atol=1e-5)
        plain = methods.make(name, CONTEXT)
        assert any(abs(plain(batch)[term] - value) > 1e-3 for term, value in method(batch).items())


@pytest.mark.parametrize("name", methods.names())
def test_every_method_that_compares_logits_can_standardize_them(name: str) -> None:
    """Whichever of its terms follow a teacher's logits, these forget a shift of them, and no other option is
    needed.
    """
    config = methods.get_config_class(name)
    compares = "logits" in methods.get_class(name).needs or name == "sdd"
    compares &= name != "crcd"  # its logits stand in a gradient, whose relation is compared
    assert ("standardize" in config.model_fields) == compares
    if not compares:
        return
    has_stages = "stages" in methods.get_class(name).needs
    context = STAGES_CONTEXT if has_stages else CONTEXT
    equal = context._replace(student=context.student._replace(embedding=context.teacher.embedding))
    batch = make_batch(rotations=4, context=equal)
    batch = with_stages(batch, equal) if has_stages else batch
    head = batch.teacher.head._replace(bias=batch.teacher.head.bias + 7)
    each = tuple(logits + 7 for logits in batch.teacher.each_logits)
    moved = batch.teacher._replace(logits=batch.teacher.logits + 7, each_logits=each, head=head)
    torch.manual_seed(0)
    method = methods.make(name, equal, config(standardize=True))  # type: ignore[call-arg]
    terms = method(batch)
    torch.manual_seed(0)
    again = methods.make(name, equal, config(standardize=True))(replace(batch, teacher=moved))  # type: ignore[call-arg]
    for term in set(terms) - {"centre"}:  # of the heads' weights, not of logits
        assert_close(again[term], terms[term], rtol=1e-4, atol=1e-5)


def test_cc_by_loops() -> None:
    student, teacher = normal(6, 5), normal(6, 5, seed=1)
    total = 0.0
    for i in range(5):
        for k in range(5):
            total += abs(float((student - teacher)[i, k] * (student - teacher)[i + 1, k]))
    assert_close(cc.correlation_loss(student, teacher).item(), total / 5)


def test_vid_is_the_log_likelihood_of_a_gaussian() -> None:
    stage = vid.StageEstimator(3, 4, init_variance=5.0).double()
    student, teacher = normal(2, 3, 4, 4), normal(2, 4, 8, 8, seed=1)
    first, second, third = (stage.mean[k].weight[:, :, 0, 0] for k in (0, 2, 4))  # type: ignore[union-attr, index]
    guess = torch.einsum("ki,nixy->nkxy", first, student).relu()
    guess = torch.einsum("ki,nixy->nkxy", third, torch.einsum("ki,nixy->nkxy", second, guess).relu())
    target = teacher.reshape(2, 4, 4, 2, 4, 2).mean(dim=(3, 5))
    likelihood = torch.distributions.Normal(guess, math.sqrt(5.0)).log_prob(target).mean()
    assert_close(stage(student, teacher), -likelihood - 0.5 * math.log(2 * math.pi), rtol=1e-6, atol=0)


def apply_batch_norm(x: Tensor, norm: AnyDeviceSyncBatchNorm) -> Tensor:
    """By the definition, a channel at a time."""
    channels = [
        (c - c.mean()) / torch.sqrt(c.var(correction=0) + 1e-5) * w + b
        for c, w, b in zip(x.unbind(1), norm.weight, norm.bias, strict=True)
    ]
    return torch.stack(channels, dim=1)


@pytest.mark.parametrize("hint", [1, 2, 3])  # half, double and equal size
def test_fitnet_by_definition(hint: int) -> None:
    method = fitnet.Method(fitnet.Config(hint=hint), FITNET_CONTEXT)
    batch = make_batch(context=FITNET_CONTEXT)
    guess = apply_batch_norm(method.conv(batch.student.maps[hint]), method.norm).clamp(min=0)
    expected = sum(
        (a - b) ** 2 for a, b in zip(guess.flatten(), batch.teacher.maps[hint].flatten(), strict=True)
    )
    assert_close(method(batch)["hint"], expected / guess.numel(), rtol=1e-5, atol=0)


def resize_nearest(x: Tensor, height: int, width: int) -> Tensor:
    rows = [i * x.shape[2] // height for i in range(height)]
    return x[:, :, rows][:, :, :, [j * x.shape[3] // width for j in range(width)]]


def test_reviewkd_fuses_deep_to_shallow() -> None:
    method, batch = reviewkd.Method(reviewkd.Config(), CONTEXT), make_batch()
    student = [*batch.student.maps[1:], batch.student.embedding[:, :, None, None]]
    teacher = [*batch.teacher.preacts[1:], batch.teacher.embedding[:, :, None, None]]
    rest, expected = None, torch.zeros(())
    for fusion, x, target in zip(method.fusions, student[::-1], teacher[::-1], strict=True):
        parts: Any = fusion
        inner = apply_batch_norm(
            torch.einsum("ki,nixy->nkxy", parts.enter[0].weight[:, :, 0, 0], x), parts.enter[1]
        )
        if rest is not None:
            rest = resize_nearest(rest, *x.shape[2:])
            both = torch.cat([inner, rest], dim=1)
            gates = torch.einsum("ki,nixy->nkxy", parts.attention.weight[:, :, 0, 0], both)
            gates = 1 / (1 + torch.exp(-gates - parts.attention.bias[:, None, None]))
            inner = inner * gates[:, :1] + rest * gates[:, 1:]
        rest = resize_nearest(inner, *target.shape[2:])
        guess = apply_batch_norm(F.conv2d(rest, parts.leave[0].weight, padding=1), parts.leave[1])
        expected = expected + reviewkd.context_loss([guess], [target])
    assert_close(method(batch)["review"], expected, rtol=1e-4, atol=0)
    assert method(replace(batch, progress=torch.tensor(0.0)))["review"] == 0


def test_ckd_by_loops() -> None:
    student, teacher, total = normal(6, 5), normal(6, 5, seed=1), 0.0
    for i in range(6):
        cosines = [float(teacher[i] @ s / (teacher[i].norm() * s.norm())) for s in student]
        total += math.log(sum(math.exp(c / 0.3) for c in cosines)) - cosines[i] / 0.3
    assert_close(ckd.contrast_loss(student, teacher, 0.3).item(), total / 6)


def dkd_divergence(student: Tensor, teacher: Tensor, label: int, temperature: float) -> float:
    """TCKD + 3 NCKD of two rows of logits [c], by the definition."""
    p, q = ((z / temperature).softmax(0) for z in (teacher, student))
    target = sum(float(a * (a / b).log()) for a, b in ((p[label], q[label]), (1 - p[label], 1 - q[label])))
    others = [k for k in range(len(p)) if k != label]
    return target * temperature**2 + 3 * kl_divergence(student[others], teacher[others], temperature)


@pytest.mark.parametrize("kind", [sdd.KD(), sdd.DKD(non_target=3.0)], ids=lambda d: d.kind)
def test_sdd_by_loops_over_regions(kind: sdd.KD | sdd.DKD) -> None:
    n, labels, heads = 5, torch.tensor([0, 1, 2, 0, 1]), []
    student, teacher = normal(n, 6, 8, 8), normal(n, 7, 8, 8, seed=1)
    for width, seed in ((6, 2), (7, 3)):
        heads.append(Head(3 * normal(3, width, seed=seed), normal(3, seed=seed)))
    total, count, kinds = 0.0, 0, set()
    for i in range(n):
        whole = None
        for cells in (1, 2, 4):
            size = 8 // cells
            for y in range(0, 8, size):
                for x in range(0, 8, size):
                    s, t = (
                        head.weight @ maps[i, :, y : y + size, x : x + size].mean(dim=(1, 2)) + head.bias
                        for maps, head in zip((student, teacher), heads, strict=True)
                    )
                    correct = int(t.argmax()) == int(labels[i])
                    whole = correct if whole is None else whole
                    kinds.add((whole, correct))
                    each = (
                        kl_divergence(s, t, 4.0)
                        if kind.kind == "kd"
                        else dkd_divergence(s, t, int(labels[i]), 4.0)
                    )
                    total += each * (1 if correct == whole else 2)
                    count += 1
    assert len(kinds) == 4 and count == n * 21
    s, t = (sdd.region_logits(x, head, 4) for x, head in zip((student, teacher), heads, strict=True))
    assert_close(sdd.region_loss(s, t, labels, 4.0, 2.0, kind).item(), total / count)


def test_only_the_dkd_of_sdd_warms_up() -> None:
    batch = make_batch()
    for kind, part in ((sdd.KD(), 1.0), (sdd.DKD(warm_up=0.8), 0.25)):
        method = sdd.Method(sdd.Config(divergence=kind), CONTEXT)
        moments = torch.tensor([0.2, 0.9])
        early, late = (method(replace(batch, progress=progress))["kd"] for progress in moments)
        assert_close(early, part * late)


def output_shapes(net: str) -> OutputShapes:
    with torch.device("meta"):
        return models.make(net, 10).shapes(32)


@pytest.mark.parametrize(
    ("name", "student", "teacher", "message"),
    [
        ("at", "wrn_16_2", "vgg13", r"student's maps are 16x32x32, .*, the teacher's 64x32x32, "),
        ("vid", "vgg8", "resnet20", r"64x32x32, .* 16x32x32"),
        ("reviewkd", "ResNet50", "wrn_40_2", r"stages cannot be paired"),
    ],
)
def test_nets_that_a_method_cannot_serve_are_refused_at_once(
    name: str, student: str, teacher: str, message: str
) -> None:
    context = MethodContext(
        output_shapes(student), output_shapes(teacher), torch.zeros(20, dtype=torch.int64)
    )
    with pytest.raises(ValueError, match=message) as caught:
        methods.make(name, context)
    assert "\n" not in str(caught.value)


def test_fitnet_refuses_maps_without_a_convolution_between_them() -> None:
    with pytest.raises(ValueError, match=r"from the student's map \(8, 3, 3\) to the teacher's \(9, 4, 4\)"):
        fitnet.Method(fitnet.Config(hint=2), CONTEXT)
    with pytest.raises(ValueError, match="hint = 3, but the student has 3 maps"):
        fitnet.Method(fitnet.Config(hint=3), CONTEXT)


PAIRED: list[Callable[[Tensor, Tensor], Tensor]] = [
    sp.similarity_loss, rkd.distance_loss, rkd.angle_loss, pkt.affinity_loss, cc.correlation_loss,
]  # fmt: skip


@pytest.mark.parametrize("loss", PAIRED, ids=lambda loss: loss.__module__.split(".")[-1])
def test_relations_survive_equal_and_empty_rows(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = normal(6, 5).float(), normal(6, 5, seed=1).float()
    student[1], student[2:4] = student[0], 0.0
    student.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert value.isfinite() and student.grad is not None and student.grad.isfinite().all()


def test_simkd_deploys_the_projector_under_the_teachers_classifier() -> None:
    torch.manual_seed(0)
    batch = make_batch()
    method = simkd.Method(simkd.Config(), CONTEXT)
    loss = method(batch)["feature"]
    assert isinstance(method.deploy_head, simkd.ReusedClassifier)
    guess, target = method.deploy_head.projector(batch.student.maps[-1]).detach(), batch.teacher.pooled
    target = target.unfold(2, 2, 1).unfold(3, 2, 1).mean(dim=(4, 5))  # 4x4 to 3x3: windows of 2, one apart
    total = sum(float((g - a) ** 2) for g, a in zip(guess.flatten(), target.flatten(), strict=True))
    assert_close(loss.item(), total / guess.numel(), rtol=1e-4, atol=0)
    logits = method.eval().deploy_head(batch.student)
    means = method.deploy_head.projector(batch.student.maps[-1]).flatten(2).mean(dim=2)
    for row, mean in zip(logits, means, strict=True):
        expected = [float((w @ mean + b).detach()) for w, b in zip(*batch.teacher.head, strict=True)]
        assert_close(row, torch.tensor(expected))


def halve_to(x: Tensor, size: int) -> Tensor:
    """Means of 2x2 places, again and again."""
    while x.shape[2] > size:
        x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return x


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "teacher", "width", "size"),
    [
        ("ShuffleV2", "resnet32x4", 464, 4),
        ("MobileNetV2", "resnet32x4", 160, 2),
        ("resnet8x4", "ResNet50", 256, 4),
        ("resnet20", "vgg13", 64, 4),
        ("wrn_16_2", "wrn_40_2", 128, 8),
    ],
)
def test_simkd_deploys_what_it_trained(student: str, teacher: str, width: int, size: int) -> None:
    """Widths are those of feat[-2] in DefangChen/SimKD; the larger map is pooled in use as in training."""
    torch.manual_seed(0)
    context = MethodContext(output_shapes(student), output_shapes(teacher), torch.zeros(4, dtype=torch.int64))
    method = simkd.Method(simkd.Config(factor=8), context).eval()
    net, target = models.make(student, 10).eval(), models.make(teacher, 10).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        outputs, targets = net(images), target(images)
        labels = torch.zeros(2, dtype=torch.int64)
        loss = method(MethodBatch(labels, labels, torch.tensor(0.5), outputs, targets))["feature"]
        assert isinstance(method.deploy_head, simkd.ReusedClassifier)
        logits = method.deploy_head(outputs)
        features = outputs.pooled if student.startswith("wrn") else outputs.maps[-1]
        assert features.shape[1] == width
        guess = method.deploy_head.projector(halve_to(features, size))
        expected = (guess - halve_to(targets.pooled, size)).square().mean()
        weight, bias = targets.head
        assert_close(logits, guess.sum(dim=(2, 3)) / size**2 @ weight.T + bias, rtol=1e-4, atol=1e-5)
        assert_close(loss, expected, rtol=1e-4, atol=0)
