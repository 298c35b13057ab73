"""EED and BEED: definitions written in loops (tests/methods/test_methods.py holds the contract)."""

import pytest
import torch
from support.oracles import kl_divergence
from torch import Tensor
from torch.testing import assert_close

from raykd import methods, models
from raykd.batch import MethodContext, OutputShapes, empty_outputs
from raykd.contract.synthetic_batch import CONTEXT, FITNET_CONTEXT, make_batch
from raykd.methods import beed, eed

BATCH = make_batch(context=FITNET_CONTEXT)


def four_outputs(method: eed.Method | beed.Method) -> tuple[list[Tensor], list[Tensor]]:
    logits, maps = method.exits(BATCH)
    assert_close(logits[3], BATCH.student.logits)
    assert_close(maps[3], BATCH.student.pooled)
    for head, z, x in zip(method.exits.heads, logits[:3], maps[:3], strict=True):
        assert_close(z, x.flatten(2).mean(dim=2) @ head.weight.T + head.bias)
    return [z.detach() for z in logits], [x.detach() for x in maps]


def cross_entropy(logits: Tensor) -> float:
    rows = zip(logits, BATCH.labels.tolist(), strict=True)
    return sum(-float(row.softmax(dim=0)[label].log()) for row, label in rows) / len(logits)


def test_eeds_terms_are_those_of_loops() -> None:
    torch.manual_seed(0)
    method = eed.Method(eed.Config(), FITNET_CONTEXT)
    logits, maps = four_outputs(method)
    features = [x.flatten(2).mean(dim=2) for x in maps]
    mean_logits, mean_feature = sum(logits) / 4, sum(features) / 4
    masked = sum(
        (a - b) ** 2 if a > 0 or b > 0 else 0.0
        for f in features
        for a, b in zip(f.flatten().tolist(), mean_feature.flatten().tolist(), strict=True)
    )
    terms = method(BATCH)
    assert terms["exits"].item() == pytest.approx(sum(map(cross_entropy, logits[:3])), rel=1e-4)
    squares = sum(float((z - mean_logits).square().mean()) for z in logits)
    assert terms["logits"].item() == pytest.approx(squares, rel=1e-4)
    assert terms["feature"].item() == pytest.approx(masked / features[0].numel(), rel=1e-4)


def test_beeds_terms_are_those_of_loops() -> None:
    torch.manual_seed(0)
    method = beed.Method(beed.Config(), FITNET_CONTEXT)
    logits, maps = four_outputs(method)
    weights = [1.0, 1.6, 1.6**2, 1.6**3]
    mean_logits, mean_map = (
        sum(w * x for w, x in zip(weights, parts, strict=True)) / sum(weights) for parts in (logits, maps)
    )
    balance = [1.15**3, 1.15**2, 1.15, 1.0]
    divergences = [
        sum(kl_divergence(s, t, 3) for s, t in zip(z, mean_logits, strict=True)) / len(z) for z in logits
    ]
    terms = method(BATCH)
    exits = sum((2 - a) * cross_entropy(z) for a, z in zip(balance[:3], logits[:3], strict=True))
    assert terms["exits"].item() == pytest.approx(exits, rel=1e-4)
    kd = sum(a * divergence for a, divergence in zip(balance, divergences, strict=True))
    assert terms["kd"].item() == pytest.approx(kd, rel=1e-3)
    feature = sum(float((x - mean_map).square().mean()) for x in maps)
    assert terms["feature"].item() == pytest.approx(feature, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eed", "beed"])
@pytest.mark.parametrize("net", ["wrn_16_1", "MobileNetV2", "ShuffleV2", "vgg8"])
def test_exits_end_in_the_shape_of_the_nets_last_features_without_a_teacher(name: str, net: str) -> None:
    student = models.make(net, 5)
    context = MethodContext(student.shapes(32), OutputShapes(0, 0, ()), torch.arange(4))
    method = methods.make(name, context)
    outputs = student(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    labels = torch.arange(4)
    batch = type(BATCH)(labels, labels, 0.5, outputs, empty_outputs(4, labels.device))
    assert {x.shape for x in method.exits(batch).maps} == {(4, *context.student.pooled)}
    assert method.deploy_head is None and all(term > 0 for term in method(batch).values())


@pytest.mark.parametrize("name", ["eed", "beed"])
def test_a_net_of_too_few_maps_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="3 exits need a student of at least 4 maps, but it has 3"):
        methods.make(name, CONTEXT)
