"""A lesson: one batch, a student, a teacher's answer and a method -> raw named loss terms.

One nn.Module, so that DistributedDataParallel sees every weight that learns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd import methods, models
from raykd.batch import Batch, Setting, Shapes, Step, View
from raykd.maths.logits import pair
from raykd.methods.kd import kd_loss
from raykd.study.recipe import Recipe


class Deployed(nn.Module):
    """What is evaluated and handed on where a method replaces the student's head."""

    def __init__(self, student: models.Net, tail: nn.Module) -> None:
        super().__init__()
        self.student, self.tail = student, tail

    def forward(self, images: Tensor) -> View:
        view: View = self.student(images)
        return view._replace(logits=self.tail(view))


class Lesson(nn.Module):
    """Student and method together.

    `labels` are those of the training images [images]; `teacher` the shapes of the teacher's View.
    ValueError when the method cannot serve the two nets.
    """

    def __init__(
        self, recipe: Recipe, labels: Tensor, classes: int, image_size: int, teacher: Shapes
    ) -> None:
        super().__init__()
        self.student = models.make(recipe.student.net, classes)
        setting = Setting(self.student.shapes(image_size), teacher, labels)
        self.method = methods.make(recipe.method.name, setting, recipe.method)
        views = type(self.method).rotations
        if views not in (None, recipe.data.rotations):
            raise ValueError(
                f"{recipe.method.name} needs data/rotations = {views}, but it is {recipe.data.rotations}"
            )
        self._plus_kd = recipe.plus_kd
        self._rotations = recipe.data.rotations
        self.autocast = False

    def deployed(self) -> nn.Module:
        """The net that is left when the lesson is over: the student, with the method's tail if it has one."""
        return self.student if self.method.tail is None else Deployed(self.student, self.method.tail)

    def forward(self, batch: Batch, teacher: View, progress: float) -> dict[str, Tensor]:
        """Raw terms in float32: "task" (cross-entropy of the upright views), the method's own, and
        "plus_kd".
        """
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.autocast):
            student: View = self.student(batch.images)
        upright = slice(None, None, self._rotations)
        step = Step(batch.labels, batch.index, progress, student, teacher, self._rotations)
        terms = {"task": F.cross_entropy(student.logits[upright].float(), batch.labels[upright])}
        terms |= self.method(step)
        if self._plus_kd is not None:
            logits = pair(student.logits[upright], teacher.logits[upright], self._plus_kd.standardize)
            terms["plus_kd"] = kd_loss(*logits, self._plus_kd.temperature)
        return terms


def check(recipe: Recipe, classes: int, image_size: int, num_images: int) -> Lesson:
    """The lesson on no device at all: shapes are checked and parameters counted, nothing is allocated."""
    with torch.device("meta"):
        shapes = (
            models.make(recipe.teacher.net, classes).shapes(image_size)
            if recipe.teacher
            else Shapes(0, 0, ())
        )
        return Lesson(recipe, torch.zeros(num_images, dtype=torch.int64), classes, image_size, shapes)
