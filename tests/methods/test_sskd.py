"""SSKD: its terms by loops over the definition, and its two stages."""

from dataclasses import replace
from typing import Any

import torch
from support import gloo
from support.synthetic_batch import (
    CONTEXT,
    average_over_ranks,
    kl_divergence,
    list_tensors,
    make_batch,
    require_gradients,
    take_rank_share,
)
from torch import Tensor
from torch.testing import assert_close

from raykd.batch import MethodBatch
from raykd.maths.gather import num_ranks
from raykd.methods import sskd


def rotated_batch(seed: int = 0, progress: float = 0.5) -> MethodBatch:
    return replace(make_batch(seed, 4), progress=progress)


def choose_easy(scores: Tensor, target: list[int], keep: float) -> list[int]:
    """As released: rows sorted by the rank of the target, all correct ones and a part of the others."""
    places = [row.argsort(descending=True).tolist().index(t) for row, t in zip(scores, target, strict=True)]
    wrong = sum(place > 0 for place in places)
    order = sorted(range(len(places)), key=lambda k: places[k])
    return order[: len(places) - wrong + int(wrong * keep)]


def test_sskd_by_loops() -> None:
    batch, config = rotated_batch(), sskd.Config(rotated_keep=0.5)
    method = sskd.Method(config, CONTEXT)
    terms = method(batch)
    s, t = batch.student, batch.teacher
    up, turned = range(0, 24, 4), [k for k in range(24) if k % 4]
    assert_close(
        terms["kd"].item(),
        sum(kl_divergence(s.logits[k], t.logits[k], 4.0) for k in up) / 6,
        rtol=1e-4,
        atol=0,
    )
    rows = choose_easy(t.logits[turned], batch.labels[turned].tolist(), 0.5)
    losses = [kl_divergence(s.logits[turned[k]], t.logits[turned[k]], 4.0) for k in rows]
    assert len(rows) < 18
    assert_close(terms["rotated"].item(), sum(losses) / len(rows), rtol=1e-4, atol=0)
    student_scores, teacher_scores = (
        torch.stack([torch.stack([torch.cosine_similarity(x[k], x[u], dim=0) for u in up]) for k in turned])
        for x in (method.student_head(s.embedding), method.teacher_head(t.embedding))
    )
    rows = choose_easy(teacher_scores, [k // 4 for k in turned], 0.75)
    losses = [kl_divergence(student_scores[k], teacher_scores[k], 0.5) for k in rows]
    assert_close(terms["similarity"].item(), sum(losses) / len(rows), rtol=1e-4, atol=0)
    loss = method(replace(batch, progress=0.1))["teacher_head"]
    logs = [teacher_scores[j].log_softmax(0)[k // 4] for j, k in enumerate(turned)]
    assert_close(loss, -torch.stack(logs).mean())


def descend(method: sskd.Method, terms: dict[str, Tensor]) -> None:
    """A step of SGD with weight decay."""
    method.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    for weight in method.parameters():
        if weight.grad is not None:
            weight.data -= weight.grad + 5e-4 * weight


def test_the_teachers_head_of_sskd_learns_first_and_is_frozen_then() -> None:
    method = sskd.Method(sskd.Config(), CONTEXT)
    losses = []
    for _ in range(15):
        kept = [w.clone() for w in method.teacher_head.parameters()]
        terms = method(require_gradients(rotated_batch(progress=0.1)))
        descend(method, terms)
        assert terms["similarity"] == 0 and not any(w.grad.any() for w in method.student_head.parameters())
        losses.append(terms["teacher_head"].item())
    assert losses[-1] < 0.9 * losses[0]
    first, state = method(rotated_batch())["similarity"].item(), method.state_dict()
    for _ in range(3):
        terms = method(require_gradients(rotated_batch()))
        descend(method, terms)
        assert terms["teacher_head"] == 0 and not any(w.grad.any() for w in method.teacher_head.parameters())
    assert_close(list(method.frozen.parameters()), kept, rtol=0, atol=0)
    assert all(w.grad is None for w in method.frozen.parameters())
    assert method(rotated_batch())["similarity"].item() < first
    resumed = sskd.Method(sskd.Config(), CONTEXT)
    resumed.load_state_dict(state)
    assert_close(resumed(rotated_batch()), method(rotated_batch()), rtol=0, atol=0)


def run_teacher_stage(batches: list[MethodBatch]) -> list[Any]:
    torch.manual_seed(0)
    method, results = sskd.Method(sskd.Config(), CONTEXT), []
    for global_batch in batches:
        method.zero_grad()
        batch = require_gradients(take_rank_share(global_batch))
        loss = sum(method(batch).values())
        loss.backward()
        assert all(x.grad is None for x in list_tensors(batch.teacher))
        results.append(
            [
                average_over_ranks(loss.detach()),
                *(average_over_ranks(w.grad) for w in method.teacher_head.parameters()),
            ]
        )
    return results


def test_the_first_stage_of_sskd_on_two_ranks_is_that_of_one_process() -> None:
    assert num_ranks() == 1
    batches = [rotated_batch(seed, progress=0.1) for seed in (0, 1)]
    for rank in gloo.run(run_teacher_stage, batches):
        assert_close(rank, run_teacher_stage(batches), rtol=1e-4, atol=1e-6)
