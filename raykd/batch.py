"""The types of one batch.

What a net puts out (Outputs) and in which shapes (OutputShapes); what a method is built for (MethodContext)
and what it reads of a batch (MethodBatch).

Legend: n images of the batch (times the rotations), c classes, d width of the embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Triple = tuple[float, float, float]  # a number for each channel of an image


class Head(NamedTuple):
    """The classifier of a net: logits = embedding @ weight.T + bias."""

    weight: Tensor  # [c, d]
    bias: Tensor  # [c]


class Outputs(NamedTuple):
    """What a net puts out for a batch. What it cannot give is empty, as maps and pooled of cached outputs."""

    logits: Tensor  # [n, c]
    embedding: Tensor  # [n, d], the pooled features that the head reads
    maps: tuple[Tensor, ...]  # one [n, channels, height, width] a stage, shallow to deep
    head: Head
    pooled: Tensor  # [n, d, height, width], the features whose spatial mean is the embedding
    preacts: tuple[Tensor, ...] = ()  # of each map what the stage's last ReLU reads, shaped as the map
    each_logits: tuple[Tensor, ...] = ()  # [n, c] of each of several teachers; `logits` are their mean


class OutputShapes(NamedTuple):
    """The shapes of Outputs without the batch axis, known without a forward pass."""

    classes: int
    embedding: int
    maps: tuple[tuple[int, int, int], ...]  # (channels, height, width) a stage
    missing: tuple[str, ...] = ()  # the fields of Outputs that the net cannot give: they are empty

    @property
    def pooled(self) -> tuple[int, int, int]:
        """(channels, height, width) of Outputs.pooled: as large as the last map."""
        return (self.embedding, *self.maps[-1][1:])


Wrap = Callable[
    [str, Callable[..., Any]], Callable[..., Any]
]  # (name, function of tensors) -> what is called


class Stages(Protocol):
    """Runs the stages of a net by themselves (0: the stem) on maps [n, channels, h, w]."""

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage from the map before it."""
        ...

    def run_from(self, first: int, x: Tensor) -> Outputs:
        """Returns the Outputs of the stages from `first` on, which reads x."""
        ...


MakeBranch = Callable[[int, int], nn.Module]  # (a student's number, its first stage) -> a map -> Outputs


def refuse_branch(student: int, first: int) -> nn.Module:
    """Stands where no net is known."""
    raise ValueError(f"no net is known of which stages from {first} on could be run by themselves")


class MethodContext(NamedTuple):
    """What a method is built for: the two nets and the labels of the training images."""

    student: OutputShapes
    teacher: OutputShapes
    labels: Tensor  # [images], int64, in the order of MethodBatch.index
    peers: tuple[OutputShapes, ...] = ()  # of the other students that learn beside
    make_branch: MakeBranch = refuse_branch  # the last stages of a student, with weights of their own

    @property
    def students(self) -> tuple[OutputShapes, ...]:
        """The shapes of all students, the deployed one's first."""
        return (self.student, *self.peers)


@dataclass(frozen=True)
class Batch:
    """One batch on the device, augmented and normalised."""

    images: Tensor  # [n, 3, height, width], float32, channels_last; an image's rotated views are adjacent
    labels: Tensor  # [n], int64, repeated for each rotated view
    index: Tensor  # [n], int64, position in the training set, repeated likewise
    view: Tensor  # [n], int64, which augmented view of the image this is
    row: Tensor | None = None  # [n], int64, on the host: its row in the index of all views, if there is one
    partner_labels: Tensor | None = None  # [n], int64, of the images that are mixed in, where they are
    share: Tensor | None = None  # [n], 0.5 .. 1, the part of a mixed view that `labels` tell of


@dataclass(frozen=True)
class MethodBatch:
    """What a method sees of one batch."""

    labels: Tensor  # [n]
    index: Tensor  # [n], position in the training set
    progress: Tensor  # [], float64, part of the trial's epochs behind it, 0 <= progress < 1
    student: Outputs
    teacher: Outputs
    rotations: int = 1  # rows 0, rotations, 2 * rotations, ... are the upright views
    peers: tuple[Outputs, ...] = ()  # of the other students that learn beside
    student_stages: Stages | None = None  # where the method's needs name stages
    teacher_stages: Stages | None = None  # likewise; frozen, with gradients for what they read
    prepared: tuple[Tensor, ...] | None = None  # by the method's `prepare`; None: by forward itself

    @property
    def upright(self) -> slice:
        """The rows of the upright views."""
        return slice(None, None, self.rotations)

    @property
    def students(self) -> tuple[Outputs, ...]:
        """The outputs of all students, the deployed one's first."""
        return (self.student, *self.peers)


def empty_outputs(batch_size: int, device: torch.device) -> Outputs:
    """Returns the outputs of no teacher: empty tensors, for methods that need none."""
    empty = torch.empty(batch_size, 0, device=device)
    head = Head(torch.empty(0, 0, device=device), torch.empty(0, device=device))
    return Outputs(empty, empty, (), head, torch.empty(batch_size, 0, 0, 0, device=device))


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the host on a device; a GPU is not waited for."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
