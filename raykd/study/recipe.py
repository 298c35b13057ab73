"""A Recipe: everything that decides one trial, as frozen plain data."""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from raykd import methods
from raykd.data import AnyData
from raykd.data.sampler import Grouping, check_classes
from raykd.methods._base import MethodConfig
from raykd.spec import ByTag, Choice, Range, Seed, Spec
from raykd.study.nets import NetSpec, PeerSpec, StudentSpec
from raykd.study.optimizer import Optimizer, Schedule, StepDecay
from raykd.study.students import check_students, check_teachers_method
from raykd.teachers.cache_form import CacheForm
from raykd.teachers.cached import CACHEABLE

MethodByName = Annotated[MethodConfig, ByTag("name", methods.names, methods.get_config_class)]
OF_SEVERAL = {"logits", "each_logits"}  # what several teachers give
LabelSmoothing = Annotated[float, Field(ge=0, lt=1), Range(0, 0.3)]  # of the cross-entropy (arXiv:1512.00567)


class TeacherTraining(Spec):
    """How a study trains its own teacher: once, by cross-entropy or another method that needs no teacher.

    Its weights are kept in the storage, under the hash of all that decides them.
    """

    method: MethodByName = methods.get_default("ce")
    epochs: Annotated[int, Field(ge=1)] = 240
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = StepDecay()
    label_smoothing: LabelSmoothing = 0.0
    seed: Seed = 0

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        check_teachers_method(self.method.name)
        return self

    def check_batch_size(self, workers: int) -> None:
        """As `Optimizer.check_batch_size`, for the views of an image that the method takes."""
        views = methods.get_class(self.method.name).views
        self.optimizer.check_batch_size(workers, views=views)


class TeacherSpec(NetSpec):
    """Where the teacher comes from: weights as they are, or the study's own training (`train`).

    With both, the training begins with the weights.
    """

    role = "teacher"

    train: TeacherTraining | None = None
    cache: CacheForm = CacheForm()  # in which form its outputs are kept and learnt from

    def with_weights(self, place: str) -> "TeacherSpec":
        """Returns the teacher as it teaches, by its weights at a place."""
        sha256 = None if self.train else self.sha256  # that of a trained one is of its start
        update = {"weights": place, "sha256": sha256, "head": "loaded", "train": None}
        return self.model_copy(update=update)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.weights is None and self.train is None:
            raise ValueError("say weights (a checkpoint), train (settings of its training), or both")
        if self.train is None and self.head == "new":
            raise ValueError("head = new: a new classifier knows nothing; say train (how it learns)")
        return self


class WeightedTeacher(TeacherSpec):
    """One of several teachers, whose logits are averaged with weights."""

    weight: Annotated[float, Field(gt=0), Range(0.1, 10, log=True)] = 1.0  # beside the others'


class PlusKD(Spec):
    """KD beside another method, as the papers' "+KD" rows."""

    temperature: Annotated[float, Field(gt=0), Range(1, 8, log=True)] = 4.0
    weight: Annotated[float, Field(ge=0), Range(0.1, 20, log=True)] = 1.0
    standardize: Annotated[bool, Choice((True, False))] = False  # logits by their z-score first


class Recipe(Spec):
    """One trial. Every field's path is its name in the study file, in Optuna, in tables, plots and --set."""

    data: AnyData
    teacher: TeacherSpec | None = None
    teachers: Annotated[tuple[WeightedTeacher, ...], Field(max_length=8)] = ()  # instead of one
    student: StudentSpec
    peers: Annotated[tuple[PeerSpec, ...], Field(max_length=7)] = ()  # other nets that learn beside
    method: MethodByName
    plus_kd: PlusKD | None = None
    epochs: Annotated[int, Field(ge=1)] = 240
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = StepDecay()
    label_smoothing: LabelSmoothing = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1), Choice((0.9, 0.99, 0.999))] = 0.99  # a step; 0: no average
    batch_norm: Literal["local", "synced"] = "local"  # a worker's own statistics, or those of all workers
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: Seed = 0

    @property
    def needs_teacher(self) -> bool:
        """Whether a loss term reads the teacher's outputs: the method's own, or that of `plus_kd`."""
        return bool(self._method_class.needs) or self.plus_kd is not None

    def list_teachers(self) -> tuple[TeacherSpec, ...]:
        """Returns the teacher, or all of several; empty without one."""
        return (self.teacher,) if self.teacher else self.teachers

    def list_students(self) -> tuple[NetSpec, ...]:
        """Returns the nets that learn, a copy as often as it is there; the first one is deployed."""
        return (*[self.student] * self.student.copies, *self.peers)

    @property
    def num_members(self) -> int:
        """The members of the student: one for each teacher, or none."""
        return len(self.teachers) if self._method_class.students == "members" else 0

    @property
    def grouping(self) -> Grouping:
        """What stands together in a batch."""
        return Grouping(self.optimizer.images_per_class, self._method_class.views)

    def check_batch_size(self, workers: int, images: int | None = None) -> None:
        """As `Optimizer.check_batch_size`, for the views of an image that the method takes."""
        self.optimizer.check_batch_size(workers, images, self._method_class.views)

    def check_classes(self, labels: Tensor, classes: Sequence[str]) -> None:
        """ValueError that names a class of fewer images, by their labels, than stand together in a batch."""
        check_classes(labels, classes, self.optimizer.images_per_class)

    @property
    def _method_class(self) -> type[methods.Method]:
        method_class: type[methods.Method] = methods.get_class(self.method.name)
        return method_class

    @property
    def reads_cacheable(self) -> bool:
        """Whether a cache holds all that the loss terms read of the teacher's outputs."""
        reads_views = self.needs_teacher and not self.method.image_step  # moved images have no numbers
        return reads_views and self._method_class.needs <= CACHEABLE

    @model_validator(mode="after")
    def _check_teacher(self) -> Self:
        if self.teacher and self.teachers:
            raise ValueError("say either teacher (one) or teachers (several, averaged)")
        needs = self._method_class.needs
        if len(self.teachers) > 1 and not needs <= OF_SEVERAL:
            raise ValueError(
                f"teachers: method '{self.method.name}' reads {', '.join(sorted(needs - OF_SEVERAL))} of its "
                f"teacher; several serve methods that read logits alone: {', '.join(_list_logit_methods())}"
            )
        for name, form in self._list_cache_forms().items():
            check_form(name, form, self.method.name)
            if self.method.image_step and not form.is_exact:
                raise ValueError(f"{name}: no form keeps outputs of images that method/perturbation moves")
        if self.needs_teacher and not self.list_teachers():
            raise ValueError(f"method '{self.method.name}' needs a teacher, and the recipe names none")
        if self.plus_kd and self.method.name == "kd":
            raise ValueError("plus_kd adds KD to another method; the method is kd already")
        return self

    def _list_cache_forms(self) -> dict[str, CacheForm]:
        """By their paths."""
        several = {f"teachers/{number}/cache": teacher.cache for number, teacher in enumerate(self.teachers)}
        return {"teacher/cache": self.teacher.cache} if self.teacher else several

    @model_validator(mode="after")
    def _check_students(self) -> Self:
        counts = self.student.copies, len(self.peers), len(self.teachers)
        check_students(self.method.name, self._method_class, *counts)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain data (dict, list, str, numbers), for a file or another process."""
        data: dict[str, Any] = self.model_dump(mode="json")
        return data

    def loss_weights(self) -> dict[str, float]:
        """Returns the weight of each loss term, cross-entropy ("task") included."""
        weights: dict[str, float] = self.method.weights.model_dump()
        return weights | ({"plus_kd": self.plus_kd.weight} if self.plus_kd else {})

    def with_settings(self, settings: dict[str, Any]) -> "Recipe":
        """Returns the recipe with some top-level settings replaced, all validated anew."""
        return Recipe.model_validate_json(json.dumps(self.to_dict() | settings))


def check_form(path: str, form: CacheForm, name: str) -> None:
    """Raises ValueError when a method cannot be served by what a form keeps of a teacher's outputs."""
    if form.is_exact:
        return
    method = methods.get_class(name)
    if lacking := sorted(method.needs - CACHEABLE):
        raise ValueError(
            f"{path}: method '{name}' reads its teacher's {', '.join(lacking)}: no form keeps them"
        )
    if form.embedding == "none" and "embedding" in method.needs:
        raise ValueError(f"{path}/embedding = none: method '{name}' reads its teacher's embedding")
    if form.top_logits is not None and method.compares_classes:
        raise ValueError(
            f"{path}/top_logits = {form.top_logits}: method '{name}' compares classes over the images, and "
            "needs all logits of each"
        )


def _list_logit_methods() -> list[str]:
    return [name for name in methods.names() if set() < methods.get_class(name).needs <= OF_SEVERAL]


def make_teacher_recipe(recipe: Recipe, teacher: TeacherSpec) -> Recipe:
    """Returns the recipe of a study's own teacher, on the same training part."""
    training = teacher.train
    assert training is not None
    return Recipe.model_validate_json(
        json.dumps(
            {
                "student": teacher.model_dump(mode="json", exclude={"train", "weight", "cache"}),
                "data": recipe.to_dict()["data"] | {"rotations": 1, "views": None},
                "precision": recipe.precision,
                **training.model_dump(mode="json"),
            }
        )
    )


def make_teacher_recipes(recipe: Recipe) -> list[Recipe]:
    """Returns the recipes of the teachers that a study trains itself."""
    return [make_teacher_recipe(recipe, teacher) for teacher in recipe.list_teachers() if teacher.train]


def digest(recipe: Recipe) -> str:
    """Returns 12 hexadecimal digits that differ when anything in the recipe does."""
    return hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
