"""Small steps of odd shapes for the tests of methods: the nets differ in width, channels and map sizes."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from raykd.batch import Head, Setting, Shapes, Step, View
from raykd.maths.gather import num_ranks

IMAGES, BATCH, CLASSES = 40, 6, 5
LABELS = torch.arange(IMAGES) * 7 % CLASSES
STUDENT = Shapes(CLASSES, 10, ((4, 12, 12), (6, 6, 6), (8, 3, 3)))
TEACHER = Shapes(CLASSES, 14, ((5, 16, 16), (7, 8, 8), (9, 4, 4)))
SETTING = Setting(STUDENT, TEACHER, LABELS)
HEADED = Setting(  # the last map is what the head pools and reads, and the sizes fit FitNet's convolutions
    Shapes(CLASSES, 10, ((4, 12, 12), (6, 12, 12), (8, 6, 6), (10, 3, 3))),
    Shapes(CLASSES, 14, ((5, 12, 12), (7, 6, 6), (9, 12, 12), (14, 3, 3))),
    LABELS,
)


def view(shapes: Shapes, rows: int, generator: torch.Generator) -> View:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    embedding = normal(rows, shapes.embedding).relu()
    head = Head(
        normal(shapes.classes, shapes.embedding) / math.sqrt(shapes.embedding), normal(shapes.classes)
    )
    logits = embedding @ head.weight.T + head.bias
    maps = [normal(rows, *shape).relu() for shape in shapes.maps]
    pooled = normal(rows, *shapes.pooled).relu()
    pooled = pooled - pooled.mean(dim=(2, 3), keepdim=True) + embedding[:, :, None, None]
    return View(logits, embedding, tuple(maps), head, pooled)


def batch(seed: int = 0, rotations: int = 1, setting: Setting = SETTING) -> Step:
    """Six images with repeated labels, rotated views in adjacent rows."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(IMAGES, generator=generator)[:BATCH].repeat_interleave(rotations)
    student, teacher = (view(shapes, len(index), generator) for shapes in (setting.student, setting.teacher))
    return Step(LABELS[index], index, 0.5, student, teacher, rotations)


def tensors(answer: View) -> list[Tensor]:
    return [answer.logits, answer.embedding, answer.pooled, *answer.maps, *answer.head]


def changed(answer: View, change: Callable[[Tensor], Tensor]) -> View:
    maps, head = tuple(map(change, answer.maps)), Head(*map(change, answer.head))
    return View(change(answer.logits), change(answer.embedding), maps, head, change(answer.pooled))


def leaves(step: Step) -> Step:
    """The same step, with every tensor of both Views asking for its gradient."""
    student, teacher = (
        changed(v, lambda x: x.detach().clone().requires_grad_()) for v in (step.student, step.teacher)
    )
    return replace(step, student=student, teacher=teacher)


def share(step: Step) -> Step:
    """The rows of this rank."""
    if num_ranks() == 1:
        return step
    half = len(step.labels) // num_ranks()
    own = slice(torch.distributed.get_rank() * half, (torch.distributed.get_rank() + 1) * half)

    def rows(v: View) -> View:
        maps = tuple(x[own] for x in v.maps)
        return View(v.logits[own], v.embedding[own], maps, v.head, v.pooled[own])

    return Step(
        step.labels[own],
        step.index[own],
        step.progress,
        rows(step.student),
        rows(step.teacher),
        step.rotations,
    )


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """T^2 KL of two rows of logits [c], by the definition."""
    p, q = ((z.detach() / temperature).softmax(0) for z in (teacher, student))
    return float((p * (p / q).log()).sum()) * temperature**2


def mean(x: Tensor) -> Tensor:
    """Averaged over ranks, as DDP averages gradients."""
    if num_ranks() > 1:
        torch.distributed.all_reduce(x)
    return x / num_ranks()


def peak_bytes(profile: torch.profiler.profile) -> int:
    """The most that was allocated at once in a profile with profile_memory, beyond what was there before."""
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    now = most = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
