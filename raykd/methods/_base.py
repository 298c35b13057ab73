"""What every method is: a Config that holds its knobs, and a module: MethodBatch -> raw loss terms."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from raykd.batch import MethodBatch, MethodContext, OutputShapes
from raykd.spec import Choice, Spec

Weight = Annotated[float, Field(ge=0)]
Standardize = Annotated[bool, Choice((True, False))]  # logits by their z-score first (arXiv:2403.01427)
Need = Literal["logits", "embedding", "maps", "head", "pooled", "preacts", "stages", "each_logits"]
Status = Literal["official", "reconstruction"]
# whether a trial has one student, several that teach one another, or one with a member for each teacher
Students = Literal["one", "peers", "members"]
LearningRate = Callable[[float, float], float]  # (progress, the recipe's) -> a part's; at 0 the part rests


class Weights(Spec):
    """The weight of each loss term; `task` is the cross-entropy with the labels, which the distiller adds."""

    task: Weight = 1.0


class MethodConfig(Spec):
    """The knobs of a method. `name` is the file's name."""

    name: str
    weights: Weights = Weights()

    @property
    def image_step(self) -> float:
        """How far images are moved before they are learnt (raykd/training/perturbation.py); 0: not at all."""
        return 0.0


def check_classes(context: MethodContext) -> None:
    """ValueError when the two nets' logits are not over the same number of classes."""
    student, teacher = context.student.classes, context.teacher.classes
    if student != teacher:
        raise ValueError(
            f"the student has {student} classes and the teacher {teacher}: logits cannot be compared"
        )


def _check_needs(role: str, needs: frozenset[Need], shapes: OutputShapes, method: str) -> None:
    if lacking := sorted(needs & set(shapes.missing)):
        raise ValueError(f"{method} reads the {role}'s {', '.join(lacking)}, which its net does not give")


class Method(nn.Module, ABC):
    """One distillation method for one pair of nets.

    A final class is built from (config, context): `context` is a raykd.batch.MethodContext. It raises
    ValueError, in one line that names both shapes, when it cannot serve the two nets.
    """

    needs: ClassVar[frozenset[Need]]  # the fields of the teacher's Outputs that forward reads
    student_needs: ClassVar[frozenset[Need] | None] = None  # those of the student's; None: the same
    compares_classes: ClassVar[bool] = False  # whether it reads a class's logits over all images of a batch
    status: ClassVar[Status]  # whether official code was followed
    paper: ClassVar[str]  # title, venue, arXiv id
    rotations: ClassVar[int | None] = None  # the views of an image that it cannot do without
    views: ClassVar[int] = 1  # upright views of an image that stand in a batch
    students: ClassVar[Students] = "one"
    config: MethodConfig
    learning_rates: dict[str, LearningRate]  # of the submodules that do not follow the recipe's
    deploy_head: nn.Module | None  # Outputs -> logits, where the method replaces the deployed student's head

    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__()
        self.config, self.deploy_head, self.learning_rates = config, None, {}
        student_needs = self.needs if self.student_needs is None else self.student_needs
        _check_needs("teacher", self.needs, context.teacher, config.name)
        for student in (context.student, *context.peers):
            _check_needs("student", student_needs, student, config.name)
        if "logits" in self.needs:
            check_classes(context)

    def prepare(self, index: Tensor, rotations: int) -> tuple[Tensor, ...]:
        """Returns what of a batch does not follow from its tensors, as draws at random; here nothing.

        It is called once before each forward, and may count steps, which forward may not: that is a function
        of tensors alone, which a GPU captures once and replays. Index [n] and rotations are MethodBatch's.
        """
        return ()

    def get_prepared(self, batch: MethodBatch) -> tuple[Tensor, ...]:
        """Returns what was prepared for a batch, or prepares it."""
        return self.prepare(batch.index, batch.rotations) if batch.prepared is None else batch.prepared

    @abstractmethod
    def forward(self, batch: MethodBatch) -> dict[str, Tensor]:
        """Raw loss terms, float32 scalars, named as the weights (less `task`). Called outside autocast."""
