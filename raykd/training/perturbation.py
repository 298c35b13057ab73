"""TDiv-SDiv: images are moved to where teachers disagree and the student's members do not (arXiv:2206.15047).

    l = H(t_1, t_2) - H(z_1, z_2),  x <- clip(x + c sqrt(D) / 255 * grad l / |grad l|)

H(a, b) is the cross-entropy - sum softmax(b) log softmax(a), without gradient through b; t are the logits of
two teachers drawn at random for each step, z those of their two members, in evaluation mode; x are an image's
D numbers, 0 to 1, grad l is of that image alone. With c = 1 (`perturbation`) its numbers move by 1 / 255 in
the root mean square. Official code followed: cs-giung/distill-latentbe, train_KD_LatentBE_TDivSDiv.py, which
draws one pair for teachers and members, too. Teachers and members then learn and teach on the moved images.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd import models
from raykd.batch import Batch, Triple
from raykd.maths.gather import num_ranks
from raykd.study.recipe import Recipe
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher, Teacher
from raykd.training.metrics import average_statistics

SMALLEST = 1e-12  # length of a gradient; along a shorter one an image moves less


def cross_entropy(first: Tensor, second: Tensor) -> Tensor:
    """H of the soft-maxes of logits, summed over images, no gradient through the second. 2 [n, c] -> []."""
    return F.cross_entropy(first, second.detach().softmax(dim=1), reduction="sum")


def move_along(x: Tensor, loss: Callable[[Tensor], Tensor], length: float) -> Tensor:
    """Images x [n, ...], each moved by a length in the direction in which the loss grows, within 0 .. 1."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x)  # of no weight
    norm = torch.linalg.vector_norm(gradient, dim=tuple(range(1, x.dim())), keepdim=True)
    moved: Tensor = x.detach() + length * gradient / norm.clamp_min(SMALLEST)
    return moved.clamp(0, 1)


class Perturbation:
    """Moves the images of a trial's batches. ValueError where a teacher's outputs come from a cache."""

    def __init__(
        self, recipe: Recipe, student: models.Net, teacher: Teacher, statistics: tuple[Triple, Triple]
    ) -> None:
        teachers = teacher.teachers if isinstance(teacher, EnsembleTeacher) else ()
        self._teachers = [one for one in teachers if isinstance(one, LiveTeacher)]
        if len(self._teachers) < max(2, len(teachers)):
            raise ValueError("method/perturbation needs two or more teachers, all without a cache")
        self._student, self._recipe = student, recipe
        device = next(student.parameters()).device
        self._mean, self._std = (torch.tensor(x, device=device).view(3, 1, 1) for x in statistics)

    def move_batches(self, batches: Iterator[Batch], epoch: int, first: int, bf16: bool) -> Iterator[Batch]:
        """Yields an epoch's batches from a step (0-based) on, each moved when it is its turn."""
        accumulate = self._recipe.optimizer.accumulate
        for number, batch in enumerate(batches, first * accumulate):
            pair = self.draw_pair(epoch, number // accumulate)
            yield replace(batch, images=self.move(batch.images, pair, bf16), row=None)

    def draw_pair(self, epoch: int, step: int) -> tuple[int, int]:
        """Returns the numbers of two teachers, which are those of their members: alike on all ranks."""
        rng = random.Random(f"{self._recipe.seed} {epoch} {step}")
        first, second = rng.sample(range(len(self._teachers)), 2)
        return first, second

    def move(self, images: Tensor, pair: tuple[int, int], bf16: bool) -> Tensor:
        """Returns normalised images [n, 3, h, w] moved for a pair; no weight or statistic changes."""

        def compute_difference(x: Tensor) -> Tensor:
            normalised = (x - self._mean) / self._std
            teachers = [self._teachers[k].compute_logits(normalised) for k in pair]
            with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
                members = [out.logits.float() for out in models.run_members(self._student, pair, normalised)]
            return cross_entropy(*teachers) - cross_entropy(*members)

        if num_ranks() > 1 and self._recipe.batch_norm == "local":
            average_statistics(self._student)  # else the moves would depend on when a state was saved
        is_training = self._student.training
        self._student.eval()
        length = self._recipe.method.image_step * images[0].numel() ** 0.5 / 255
        moved = move_along(images * self._std + self._mean, compute_difference, length)
        self._student.train(is_training)
        return (moved - self._mean) / self._std
