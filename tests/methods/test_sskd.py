"""SSKD: its terms by loops over the definition, and its two stages."""

from dataclasses import replace
from typing import Any

import torch
from support import gloo
from support.synthetic_batch import SETTING, batch, divergence, leaves, mean, share, tensors
from torch import Tensor
from torch.testing import assert_close

from raykd.batch import Step
from raykd.maths.gather import num_ranks
from raykd.methods import sskd


def rotated_step(seed: int = 0, progress: float = 0.5) -> Step:
    return replace(batch(seed, 4), progress=progress)


def chosen(scores: Tensor, target: list[int], keep: float) -> list[int]:
    """As released: rows sorted by the place of the right answer, all right ones and a part of the others."""
    places = [row.argsort(descending=True).tolist().index(t) for row, t in zip(scores, target, strict=True)]
    wrong = sum(place > 0 for place in places)
    order = sorted(range(len(places)), key=lambda k: places[k])
    return order[: len(places) - wrong + int(wrong * keep)]


def test_sskd_by_loops() -> None:
    step, config = rotated_step(), sskd.Config(rotated_keep=0.5)
    method = sskd.Method(config, SETTING)
    terms = method(step)
    s, t = step.student, step.teacher
    up, turned = range(0, 24, 4), [k for k in range(24) if k % 4]
    assert_close(
        terms["kd"].item(), sum(divergence(s.logits[k], t.logits[k], 4.0) for k in up) / 6, rtol=1e-4, atol=0
    )
    rows = chosen(t.logits[turned], step.labels[turned].tolist(), 0.5)
    losses = [divergence(s.logits[turned[k]], t.logits[turned[k]], 4.0) for k in rows]
    assert len(rows) < 18
    assert_close(terms["rotated"].item(), sum(losses) / len(rows), rtol=1e-4, atol=0)
    seen, known = (
        torch.stack([torch.stack([torch.cosine_similarity(x[k], x[u], dim=0) for u in up]) for k in turned])
        for x in (method.student_head(s.embedding), method.teacher_head(t.embedding))
    )
    rows = chosen(known, [k // 4 for k in turned], 0.75)
    losses = [divergence(seen[k], known[k], 0.5) for k in rows]
    assert_close(terms["similarity"].item(), sum(losses) / len(rows), rtol=1e-4, atol=0)
    asked = method(replace(step, progress=0.1))["teacher_head"]
    logs = [known[j].log_softmax(0)[k // 4] for j, k in enumerate(turned)]
    assert_close(asked, -torch.stack(logs).mean())


def descend(method: sskd.Method, terms: dict[str, Tensor]) -> None:
    """A step of SGD with weight decay."""
    method.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    for weight in method.parameters():
        if weight.grad is not None:
            weight.data -= weight.grad + 5e-4 * weight


def test_the_teachers_head_of_sskd_learns_first_and_is_frozen_then() -> None:
    method = sskd.Method(sskd.Config(), SETTING)
    asked = []
    for _ in range(15):
        kept = [w.clone() for w in method.teacher_head.parameters()]
        terms = method(leaves(rotated_step(progress=0.1)))
        descend(method, terms)
        assert terms["similarity"] == 0 and not any(w.grad.any() for w in method.student_head.parameters())
        asked.append(terms["teacher_head"].item())
    assert asked[-1] < 0.9 * asked[0]
    first, state = method(rotated_step())["similarity"].item(), method.state_dict()
    for _ in range(3):
        terms = method(leaves(rotated_step()))
        descend(method, terms)
        assert terms["teacher_head"] == 0 and not any(w.grad.any() for w in method.teacher_head.parameters())
    assert_close(list(method.frozen.parameters()), kept, rtol=0, atol=0)
    assert all(w.grad is None for w in method.frozen.parameters())
    assert method(rotated_step())["similarity"].item() < first
    resumed = sskd.Method(sskd.Config(), SETTING)
    resumed.load_state_dict(state)
    assert_close(resumed(rotated_step()), method(rotated_step()), rtol=0, atol=0)


def asked_of_the_teacher(steps: list[Step]) -> list[Any]:
    torch.manual_seed(0)
    method, answers = sskd.Method(sskd.Config(), SETTING), []
    for joined in steps:
        method.zero_grad()
        step = leaves(share(joined))
        loss = sum(method(step).values())
        loss.backward()
        assert all(x.grad is None for x in tensors(step.teacher))
        answers.append([mean(loss.detach()), *(mean(w.grad) for w in method.teacher_head.parameters())])
    return answers


def test_the_first_stage_of_sskd_on_two_ranks_is_that_of_one_process() -> None:
    assert num_ranks() == 1
    steps = [rotated_step(seed, progress=0.1) for seed in (0, 1)]
    for rank in gloo.run(asked_of_the_teacher, steps):
        assert_close(rank, asked_of_the_teacher(steps), rtol=1e-4, atol=1e-6)
