"""DML, MCL, L-MCL, MCL-OKD: definitions written in loops (tests/methods/test_methods.py has the contract)."""

from dataclasses import replace
from itertools import permutations, product

import pytest
import torch
from support.oracles import kl_divergence
from support.small_trainer import recipe
from torch import Tensor

from raykd.batch import MethodContext
from raykd.contract.synthetic_batch import CONTEXT, LABELS, PEER, PEERS_CONTEXT, make_batch, with_branches
from raykd.maths.mutual import Projection
from raykd.methods import dml, lmcl, mcl, mcl_okd
from raykd.training.distiller import build_on_meta

THREE = PEERS_CONTEXT._replace(peers=(PEER, PEER))
each_context = pytest.mark.parametrize("context", [PEERS_CONTEXT, THREE], ids=["2 students", "3 students"])


def unit(projection: Projection, embedding: Tensor) -> Tensor:
    first, _, second = projection.layers
    hidden = (embedding @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    return hidden / hidden.norm(dim=1, keepdim=True)


def mean_divergence(student: Tensor, target: Tensor, temperature: float) -> float:
    return sum(kl_divergence(s, t, temperature) for s, t in zip(student, target, strict=True)) / len(student)


@each_context
def test_dml_is_the_mean_divergence_from_the_others(context: MethodContext) -> None:
    batch = make_batch(context=context)
    logits = [outputs.logits for outputs in batch.students]
    total = sum(mean_divergence(s, t, 2.0) for s, t in permutations(logits, 2)) / (len(logits) - 1)
    method = dml.Method(dml.Config(temperature=2.0), context)
    assert method(batch)["mutual"].item() == pytest.approx(total, rel=1e-4)


def contrast(scores: Tensor, labels: list[int]) -> float:
    """The mean over anchors of -mean over positives log e^s / sum over all but the anchor of e^s."""
    total = 0.0
    for a, row in enumerate(scores.exp().tolist()):
        positives = [p for p, label in enumerate(labels) if label == labels[a] and p != a]
        others = sum(value for k, value in enumerate(row) if k != a)
        if positives:
            total -= sum(torch.tensor(row[p] / others).log().item() for p in positives) / len(positives)
    return total / len(labels)


@each_context
def test_mcls_terms_are_those_of_loops(context: MethodContext) -> None:
    torch.manual_seed(0)
    batch = make_batch(context=context)
    method, labels = mcl.Method(mcl.Config(), context), batch.labels.tolist()
    assert len(set(labels)) < len(labels)
    features = [
        unit(head, outputs.embedding) for head, outputs in zip(method.heads, batch.students, strict=True)
    ]
    scores = {(i, j): a @ b.T / 0.1 for i, a in enumerate(features) for j, b in enumerate(features)}
    pairs = list(permutations(range(len(features)), 2))
    logits = [outputs.logits for outputs in batch.students]
    learning = logits if len(logits) == 2 else logits[:1]
    expected = {
        "vcl": sum(contrast(scores[i, i], labels) for i in range(len(features))),
        "soft_vcl": sum(mean_divergence(scores[i, i], scores[j, j], 3) for i, j in pairs),
        "icl": sum(contrast(scores[pair], labels) for pair in pairs),
        "soft_icl": sum(mean_divergence(scores[i, j], scores[j, i], 3) for i, j in pairs),
        "ensemble": sum(mean_divergence(z, sum(logits) / len(logits), 3) for z in learning),
    }
    assert {name: term.item() for name, term in method(batch).items()} == pytest.approx(expected, rel=1e-3)


def test_a_batch_without_a_second_image_of_a_class_teaches_nothing_within() -> None:
    batch = make_batch(context=PEERS_CONTEXT)
    lonely = type(batch)(
        torch.arange(len(batch.labels)), batch.index, 0.5, batch.student, batch.teacher, 1, batch.peers
    )
    terms = mcl.Method(mcl.Config(), PEERS_CONTEXT)(lonely)
    assert terms["vcl"] == 0 and terms["icl"] == 0 and all(term.isfinite() for term in terms.values())


@torch.no_grad()
def test_lmcls_terms_are_those_of_the_pairs_of_layers_one_by_one() -> None:
    torch.manual_seed(0)
    uneven = PEERS_CONTEXT._replace(peers=(PEER._replace(maps=(*PEER.maps, (8, 3, 3))),))
    context = with_branches(uneven)
    batch, method = make_batch(context=context), lmcl.Method(lmcl.Config(), context).eval()
    labels, terms, expected = (
        batch.labels.tolist(),
        method(batch),
        dict.fromkeys(lmcl.Weights.model_fields, 0.0),
    )
    features, aggregated = [], []
    for own, outputs in zip(method.with_exits, batch.students, strict=True):
        exits = [run(x) for run, x in zip(own.exits, outputs.maps[1:-1], strict=True)]
        embeddings = [*(out.embedding for out in exits), outputs.embedding]
        features.append([unit(p, x) for p, x in zip(own.projections, embeddings, strict=True)])
        shares = own.mix(torch.cat(embeddings, dim=1)).softmax(dim=1)
        logits = [*(out.logits for out in exits), outputs.logits]
        aggregated.append(sum(w[:, None] * z for w, z in zip(shares.T, logits, strict=True)))
        expected["exits"] += sum(cross_entropy(out.logits, labels) for out in exits)
    expected["aggregated"] = sum(cross_entropy(z, labels) for z in aggregated)
    expected["kd"] = sum(mean_divergence(out.logits, z, 3) for out in batch.students for z in aggregated)
    for i, j in permutations(range(2), 2):  # as released: each ordered pair, both directions
        for a, b in product(features[i], features[j]):
            aa, bb, ab, ba = (x @ y.T / 0.1 for x, y in ((a, a), (b, b), (a, b), (b, a)))
            expected["vcl"] += contrast(aa, labels) + contrast(bb, labels)
            expected["icl"] += contrast(ab, labels) + contrast(ba, labels)
            expected["soft_vcl"] += mean_divergence(aa, bb, 3) + mean_divergence(bb, aa, 3)
            expected["soft_icl"] += mean_divergence(ab, ba, 3) + mean_divergence(ba, ab, 3)
    del expected["task"]
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-3)


def cross_entropy(logits: Tensor, labels: list[int]) -> float:
    rows = zip(logits, labels, strict=True)
    return sum(-float(row.softmax(dim=0)[label].log()) for row, label in rows) / len(labels)


@torch.no_grad()
def test_mcl_okds_terms_are_those_of_loops() -> None:
    torch.manual_seed(0)
    context = with_branches(CONTEXT)
    batch = make_batch(context=context)
    config = mcl_okd.Config(branches=3, negatives=9, sampling="per_sample")
    method = mcl_okd.Method(config, context).eval()
    outputs = [batch.student, *(branch(batch.student.maps[1]) for branch in method.branches)]
    features = [head(out.embedding) for head, out in zip(method.heads, outputs, strict=True)]
    features = [x / x.norm(dim=1, keepdim=True) for x in features]
    rows, images, total = method.banks.rows.clone(), len(LABELS), 0.0
    (draws,) = prepared = method.prepare(batch.index, 1)
    for i, j in permutations(range(3), 2):
        scores = torch.stack(
            [
                (rows[j][torch.cat([batch.index[n : n + 1], draws[n]])] @ features[i][n] / 0.1).exp()
                for n in range(len(features[i]))
            ]
        )
        scores = scores / (scores.mean() * images)
        positive = (scores[:, 0] / (scores[:, 0] + 9 / images + 1e-7)).log().sum()
        negative = ((9 / images) / (scores[:, 1:] + 9 / images + 1e-7)).log().sum()
        total -= float(positive + negative) / len(scores)
    terms, labels = method(replace(batch, prepared=prepared)), batch.labels.tolist()
    logits = [out.logits for out in outputs]
    assert terms["contrast"].item() == pytest.approx(total, rel=1e-4)
    branches = sum(cross_entropy(z, labels) for z in logits[1:])
    assert terms["branches"].item() == pytest.approx(branches, rel=1e-4)
    assert terms["kd"].item() == pytest.approx(mean_divergence(logits[0], sum(logits) / 3, 3), rel=1e-3)
    moved = 0.5 * rows[2][batch.index] + 0.5 * features[2]
    torch.testing.assert_close(
        method.banks.rows[2][batch.index], moved / moved.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "student", "message"),
    [
        (
            "mcl_okd",
            "timm/resnet10t",
            "the stages of timm/resnet10t cannot be run by themselves, as those of",
        ),
        ("mcl_okd", "MobileNetV2", "the stages of MobileNetV2 cannot be run by themselves"),
        ("lmcl", "ShuffleV2", "the stages of ShuffleV2 cannot be run by themselves"),
    ],
)
def test_branches_on_a_net_that_has_no_stages_are_refused(name: str, student: str, message: str) -> None:
    copies = 2 if name == "lmcl" else 1
    settings = recipe(method={"name": name}, student={"net": student, "copies": copies})
    with pytest.raises(ValueError, match=message):
        build_on_meta(settings, 10, 32, 40)
