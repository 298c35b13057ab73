"""The distiller: one batch, a student, a teacher's outputs and a method -> raw named loss terms.

One nn.Module, so that DistributedDataParallel sees every weight that learns.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd import methods, models
from raykd.batch import Batch, MethodBatch, MethodContext, Outputs, OutputShapes, Stages, Triple
from raykd.maths.logits import prepare_logits
from raykd.methods.kd import kd_loss
from raykd.study.recipe import Recipe
from raykd.study.students import bind_branches
from raykd.teachers.ensemble import merge_shapes
from raykd.training.peers import Start, make_students


class StudentWithHead(nn.Module):
    """The net that is evaluated and exported where a method replaces the student's head."""

    def __init__(self, student: models.Net, deploy_head: nn.Module) -> None:
        super().__init__()
        self.student, self.deploy_head = student, deploy_head

    def forward(self, images: Tensor) -> Outputs:
        """Returns the student's outputs for images [n, 3, size, size], with the logits of the head."""
        outputs: Outputs = self.student(images)
        return outputs._replace(logits=self.deploy_head(outputs))

    def set_input_statistics(self, mean: Triple, std: Triple) -> None:
        """As `Net.set_input_statistics`."""
        self.student.set_input_statistics(mean, std)


DeployedStudent = models.Net | StudentWithHead


class Distiller(nn.Module):
    """Student and method together.

    Args:
        recipe: The trial.
        labels: Of the training images, [images].
        classes: How many.
        image_size: Pixels of a side.
        teacher: The shapes of the teacher's Outputs.
        starts: What each student begins with, the deployed one first; empty: random weights.

    Raises:
        ValueError: The method cannot serve the two nets.
    """

    def __init__(
        self,
        recipe: Recipe,
        labels: Tensor,
        classes: int,
        image_size: int,
        teacher: OutputShapes,
        starts: Sequence[Start] = (),
    ) -> None:
        super().__init__()
        self.student, self.peers = make_students(recipe, classes, starts)
        peer_shapes = tuple(net.shapes(image_size) for net in self.list_students()[1:])
        branches = bind_branches(recipe.list_students(), classes)
        context = MethodContext(self.student.shapes(image_size), teacher, labels, peer_shapes, branches)
        self.method = methods.make(recipe.method.name, context, recipe.method)
        rotations = type(self.method).rotations
        if rotations not in (None, recipe.data.rotations):
            raise ValueError(
                f"{recipe.method.name} needs data/rotations = {rotations}, but it is {recipe.data.rotations}"
            )
        self._plus_kd, self._num_members = recipe.plus_kd, recipe.num_members
        self._rotations, self._label_smoothing = recipe.data.rotations, recipe.label_smoothing
        self.bf16 = False
        self.teacher_stages: Stages | None = None  # for methods whose needs name stages

    def deployed_student(self) -> DeployedStudent:
        """Returns the net that is left after training: the student, with the method's deploy_head, if any."""
        head = self.method.deploy_head
        return self.student if head is None else StudentWithHead(self.student, head)

    def list_students(self) -> list[models.Net]:
        """Returns the nets that learn, the deployed one first."""
        return [self.student, *(self.peers.list_nets(self.student) if self.peers is not None else ())]

    def prepare(self, batch: Batch) -> tuple[Tensor, ...]:
        """Returns what the method prepares for a batch, before it is passed forward."""
        return self.method.prepare(batch.index, self._rotations)

    def forward(
        self,
        batch: Batch,
        teacher: Outputs,
        progress: Tensor,
        prepared: tuple[Tensor, ...] | None = None,
    ) -> dict[str, Tensor]:
        """Returns the raw loss terms, scalars in float32.

        "task" (cross-entropy of the upright views), the method's own, and "plus_kd"; of several students
        "task" and "plus_kd" are sums.

        Args:
            batch: Of the training images.
            teacher: The teacher's outputs of the same views.
            progress: 0 .. 1, the part of the training that is done: [], float64.
            prepared: What `prepare` returned for the batch; None: it is prepared here.
        """
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.bf16):
            student, *peers = self._run_students(batch.images)
        upright = slice(None, None, self._rotations)
        method_batch = MethodBatch(
            batch.labels,
            batch.index,
            progress,
            student,
            teacher,
            self._rotations,
            tuple(peers),
            self._student_stages(),
            self.teacher_stages,
            prepared,
        )
        all_logits = [outputs.logits[upright] for outputs in method_batch.students]
        terms = {"task": add([self._cross_entropy(logits.float(), batch) for logits in all_logits])}
        terms |= self.method(method_batch)
        if self._plus_kd is not None:
            terms["plus_kd"] = add(
                [self._compute_plus_kd(logits, teacher.logits[upright]) for logits in all_logits]
            )
        return terms

    def _student_stages(self) -> Stages | None:
        return (
            models.NetStages(self.student, self.bf16) if isinstance(self.student, models.StagedNet) else None
        )

    def _run_students(self, images: Tensor) -> list[Outputs]:
        if self._num_members:
            return models.run_members(self.student, range(self._num_members), images)
        return [self.student(images)] if self.peers is None else self.peers(self.student, images)

    def _cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of the upright views' logits [n, c]."""
        labels = batch.labels[:: self._rotations]
        if batch.share is not None and batch.partner_labels is not None:
            return self._mixed_cross_entropy(logits, labels, batch.partner_labels, batch.share)
        return F.cross_entropy(logits, labels, label_smoothing=self._label_smoothing)

    def _compute_plus_kd(self, logits: Tensor, teacher: Tensor) -> Tensor:
        assert self._plus_kd is not None
        both_logits = prepare_logits(logits, teacher, self._plus_kd.standardize)
        return kd_loss(*both_logits, self._plus_kd.temperature)

    def _mixed_cross_entropy(self, logits: Tensor, labels: Tensor, partner: Tensor, share: Tensor) -> Tensor:
        """Of logits [n, c] with both labels [n], each by its share; a mixed batch has no rotated views."""
        own, other = (
            F.cross_entropy(logits, one, label_smoothing=self._label_smoothing, reduction="none")
            for one in (labels, partner)
        )
        return (share * own + (1 - share) * other).mean()


def add(terms: Sequence[Tensor]) -> Tensor:
    """Returns the sum of scalars; one alone is left as it is."""
    return sum(terms[1:], terms[0])


def build_on_meta(
    recipe: Recipe, classes: int, image_size: int, num_images: int, device: str = "meta"
) -> Distiller:
    """Returns the distiller on no device at all: shapes are checked, parameters counted, nothing allocated.

    On another `device` it is untrained, as a trial without weights begins.

    Raises:
        ValueError: The method cannot serve the two nets.
    """
    with torch.device("meta"):
        teachers = [models.make(spec.net, classes, spec.options) for spec in recipe.list_teachers()]
        shapes = merge_shapes([teacher.shapes(image_size) for teacher in teachers])
    with torch.device(device):
        return Distiller(recipe, torch.zeros(num_images, dtype=torch.int64), classes, image_size, shapes)
