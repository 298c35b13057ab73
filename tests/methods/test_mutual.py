"""DML and MCL: definitions written in loops (tests/methods/test_methods.py holds the contract)."""

from itertools import permutations

import pytest
import torch
from support.synthetic_batch import PEER, PEERS_CONTEXT, kl_divergence, make_batch
from torch import Tensor

from raykd.batch import MethodContext
from raykd.methods import dml, mcl

THREE = PEERS_CONTEXT._replace(peers=(PEER, PEER))
each_context = pytest.mark.parametrize("context", [PEERS_CONTEXT, THREE], ids=["2 students", "3 students"])


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
    features = []
    for head, outputs in zip(method.heads, batch.students, strict=True):
        first, _, second = head.layers
        hidden = (outputs.embedding @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T
        features.append((hidden + second.bias) / (hidden + second.bias).norm(dim=1, keepdim=True))
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
