"""CRCD: definitions written in loops (tests/methods/test_methods.py holds the contract)."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.oracles import kl_divergence
from torch import Tensor
from torch.testing import assert_close

from raykd import methods
from raykd.contract.synthetic_batch import CLASSES, CONTEXT, LABELS, make_batch, require_gradients
from raykd.maths import relation
from raykd.methods import crcd

NUM = 9  # negatives
TAU = 0.3


def unit(point: Tensor, anchor: Tensor) -> Tensor:
    difference = point - anchor + 1e-6
    return difference / difference.square().sum().sqrt()


def loop_loss(
    bank: relation.RelationBank, student: Tensor, teacher: Tensor, index: Tensor, draw: Tensor
) -> Tensor:
    """Lechatelia/CRCD's criterion of every (image, anchor): Z by this first batch, its log D1 and log D0."""
    memory, images, total = bank.memory, len(LABELS), torch.zeros(())
    draws = {
        row: [k for k in negatives.rows.tolist() if LABELS[k] != LABELS[index[row]]]
        for anchors, negatives in memory.list_negatives(index, draw)
        for row in range(len(index))[anchors]
    }
    for features, rows in ((student, memory.teacher), (teacher, memory.student)):
        scores = []  # of each pair: the positive's exp(score), the negatives'
        for a, image in enumerate(index):
            for b in index:
                query = unit(features[a], rows[b])
                keys = [unit(rows[k], rows[b]) for k in [image, *draws[a]]]
                scores.append(torch.stack([(query @ key / TAU).exp() for key in keys]))
        means = [(x[0] + NUM * x[1:].mean()) / (NUM + 1) for x in scores]
        z, noise = torch.stack(means).mean().detach() * images, NUM / images
        for x in (x / z for x in scores):
            positive = (x[0] / (x[0] + noise + 1e-7)).log()
            negative = NUM * (noise / (x[1:] + noise + 1e-7)).log().mean()
            total = total - (positive + negative) / len(scores)
    return total


@pytest.mark.parametrize("chunk", [relation.CHUNK, 3 * NUM * 4])
@pytest.mark.parametrize("sampling", ["shared", "per_sample"])
def test_the_contrast_is_that_of_loops_in_chunks_of_anchors_too(
    sampling: crcd.Sampling, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relation, "CHUNK", chunk)
    torch.manual_seed(0)
    bank = relation.RelationBank(LABELS, 4, NUM, sampling, TAU, 0.5)
    assert_close(bank.memory.student.norm(dim=1), torch.ones(len(LABELS)))
    index = torch.tensor([3, 17, 8, 30, 21])
    student, teacher = (F.normalize(torch.randn(5, 4), dim=1).requires_grad_() for _ in range(2))
    draw = bank.memory.draw(index)
    expected = loop_loss(bank, student, teacher, index, draw)
    before = bank.memory.teacher.clone()
    loss = bank(student, teacher, index, draw)
    assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    grads, expected_grads = (torch.autograd.grad(x, (student, teacher)) for x in (loss, expected))
    assert_close(grads, expected_grads, rtol=1e-3, atol=1e-4)
    assert_close(bank.memory.teacher[8], F.normalize((before[8] + teacher[2].detach()) / 2, dim=0))
    untouched = [k for k in range(len(LABELS)) if k not in index.tolist()]
    assert_close(bank.memory.teacher[untouched], before[untouched], rtol=0, atol=0)


def test_the_gradient_is_autograds() -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(6, 10, generator=generator).requires_grad_()
    weight = torch.randn(CLASSES, 10, generator=generator)
    labels = torch.tensor([0, 3, 1, 4, 2, 3])
    logits = embedding @ weight.T
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, labels), embedding)
    assert_close(crcd.embedding_gradient(logits, labels, weight, 6), expected)


def test_the_terms_end_with_the_last_epochs_and_kd_is_the_definition() -> None:
    batch = make_batch()
    torch.manual_seed(0)
    terms = methods.make("crcd", CONTEXT)(batch)
    pairs = zip(batch.student.logits, batch.teacher.logits, strict=True)
    assert terms["kd"].item() == pytest.approx(sum(kl_divergence(s, t, 4) for s, t in pairs) / 6, rel=1e-4)
    ended = crcd.Method(crcd.Config(until=0.4), CONTEXT)(batch)
    assert all(term == 0 for term in ended.values())


def test_without_the_gradient_there_are_no_heads_or_banks_for_it() -> None:
    torch.manual_seed(0)
    plain = crcd.Method(crcd.Config(weights=crcd.Weights(gradient=0)), CONTEXT)
    torch.manual_seed(0)
    both = crcd.Method(crcd.Config(), CONTEXT)
    terms, expected = (method(require_gradients(make_batch())) for method in (plain, both))
    assert terms["gradient"] == 0 and not terms["gradient"].requires_grad
    assert 0 < expected["gradient"].item() < math.inf
    assert_close(terms["contrast"], expected["contrast"], rtol=0, atol=0)
    assert sum(x.numel() for x in both.buffers()) > 1.9 * sum(x.numel() for x in plain.buffers())
