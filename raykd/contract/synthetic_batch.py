"""Small batches of odd shapes for the contract: the nets differ in width, channels and map sizes."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from raykd.batch import Head, MethodBatch, MethodContext, Outputs, OutputShapes
from raykd.maths.gather import num_ranks

IMAGES, BATCH, CLASSES = 40, 6, 5
LABELS = torch.arange(IMAGES) * 7 % CLASSES
STUDENT = OutputShapes(CLASSES, 10, ((4, 12, 12), (6, 6, 6), (8, 3, 3)))
TEACHER = OutputShapes(CLASSES, 14, ((5, 16, 16), (7, 8, 8), (9, 4, 4)))
CONTEXT = MethodContext(STUDENT, TEACHER, LABELS)
PEER = OutputShapes(CLASSES, 12, ((4, 12, 12), (6, 6, 6), (8, 3, 3)))
PEERS_CONTEXT = CONTEXT._replace(peers=(PEER,))


class SyntheticBranch(nn.Module):
    """A map -> Outputs of a student's shapes: one convolution, pooled, two linear layers."""

    def __init__(self, shapes: OutputShapes, first: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shapes.maps[first - 1][0], shapes.embedding, 1)
        self.norm = nn.BatchNorm2d(shapes.embedding)
        self.fc = nn.Linear(shapes.embedding, shapes.classes)

    def forward(self, x: Tensor) -> Outputs:
        """Returns outputs without maps."""
        pooled = self.norm(self.conv(x.float())).relu()
        embedding = pooled.mean(dim=(2, 3))
        return Outputs(self.fc(embedding), embedding, (), Head(self.fc.weight, self.fc.bias), pooled)


def with_branches(context: MethodContext) -> MethodContext:
    """Returns the context of students whose last stages can be had anew."""
    return context._replace(make_branch=lambda student, k: SyntheticBranch(context.students[student], k))


BRANCH_CONTEXT, EXITS_CONTEXT = with_branches(CONTEXT), with_branches(PEERS_CONTEXT)
# Here the last map is what the head pools and reads, and the sizes fit FitNet's convolutions.
FITNET_CONTEXT = MethodContext(
    OutputShapes(CLASSES, 10, ((4, 12, 12), (6, 12, 12), (8, 6, 6), (10, 3, 3))),
    OutputShapes(CLASSES, 14, ((5, 12, 12), (7, 6, 6), (9, 12, 12), (14, 3, 3))),
    LABELS,
)


def make_outputs(shapes: OutputShapes, rows: int, generator: torch.Generator) -> Outputs:
    """Returns random outputs of so many rows, whose parts fit each other as a net's do."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    embedding = normal(rows, shapes.embedding).relu()
    head = Head(
        normal(shapes.classes, shapes.embedding) / math.sqrt(shapes.embedding), normal(shapes.classes)
    )
    logits = embedding @ head.weight.T + head.bias
    preacts = tuple(normal(rows, *shape) for shape in shapes.maps)
    pooled = normal(rows, *shapes.pooled).relu()
    pooled = pooled - pooled.mean(dim=(2, 3), keepdim=True) + embedding[:, :, None, None]
    maps = tuple(x.relu() for x in preacts)
    return Outputs(logits, embedding, maps, head, pooled, preacts, (logits, -logits))  # as if of two


def make_batch(seed: int = 0, rotations: int = 1, context: MethodContext = CONTEXT) -> MethodBatch:
    """Returns six images with repeated labels, rotated views in adjacent rows."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(IMAGES, generator=generator)[:BATCH].repeat_interleave(rotations)
    student, teacher, *peers = (
        make_outputs(shapes, len(index), generator)
        for shapes in (context.student, context.teacher, *context.peers)
    )
    progress = torch.tensor(0.5, dtype=torch.float64)
    return MethodBatch(LABELS[index], index, progress, student, teacher, rotations, tuple(peers))


class SyntheticStages:
    """Stages of fixed weights: a 1x1 convolution to the next map's channels, resized to its size."""

    def __init__(self, shapes: OutputShapes, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        widths = [shape[0] for shape in shapes.maps]
        self.shapes, self.weights = shapes, [
            torch.randn(b, a, 1, 1, generator=generator) for a, b in zip([3, *widths], widths, strict=False)
        ]  # fmt: skip
        self.head = torch.randn(shapes.classes, widths[-1], generator=generator)

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Returns the map of a stage from the map before it."""
        x = nn.functional.conv2d(x.float(), self.weights[index])
        return nn.functional.adaptive_avg_pool2d(x, self.shapes.maps[index][1:]).relu()

    def run_from(self, first: int, x: Tensor) -> Outputs:
        """Returns outputs without maps."""
        for index in range(first, len(self.weights)):
            x = self.run_stage(index, x)
        embedding = x.float().mean(dim=(2, 3))
        head = Head(self.head, torch.zeros(len(self.head)))
        return Outputs(embedding @ self.head.T, embedding, (), head, x)


ALIKE = TEACHER._replace(maps=((5, 12, 12), (7, 6, 6), (9, 3, 3)))
STAGES_CONTEXT = CONTEXT._replace(teacher=ALIKE)  # maps of equal sizes


def with_stages(batch: MethodBatch, context: MethodContext) -> MethodBatch:
    """Returns the batch with stages of both nets."""
    student, teacher = (SyntheticStages(net, k) for k, net in enumerate((context.student, context.teacher)))
    return replace(batch, student_stages=student, teacher_stages=teacher)


def show_twice(batch: MethodBatch, rotations: int = 1) -> MethodBatch:
    """Returns the same outputs, as if of two views each of three images, of which two are of one class."""
    first = int(batch.index[0])
    images = torch.tensor([first, first + CLASSES, first + 1]) % IMAGES
    index = images.repeat_interleave(2 * rotations)
    return replace(batch, index=index, labels=LABELS[index])


def list_tensors(*nets: Outputs) -> list[Tensor]:
    """Returns all tensors of nets' outputs, those of the head last."""
    return [x for o in nets for x in (o.logits, o.embedding, o.pooled, *o.maps, *o.preacts, *o.head)]


def map_tensors(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """Returns the outputs with every tensor changed."""
    maps, preacts = tuple(map(change, outputs.maps)), tuple(map(change, outputs.preacts))
    logits, embedding, pooled = map(change, (outputs.logits, outputs.embedding, outputs.pooled))
    head, each_logits = Head(*map(change, outputs.head)), tuple(map(change, outputs.each_logits))
    return Outputs(logits, embedding, maps, head, pooled, preacts, each_logits)


def require_gradients(batch: MethodBatch) -> MethodBatch:
    """Returns the same batch, with every tensor of all Outputs requiring a gradient."""
    return map_outputs(
        batch, lambda outputs: map_tensors(outputs, lambda x: x.detach().clone().requires_grad_())
    )


def map_outputs(batch: MethodBatch, change: Callable[[Outputs], Outputs]) -> MethodBatch:
    """Returns the same batch, with the Outputs of all nets changed."""
    student, teacher, *peers = map(change, (batch.student, batch.teacher, *batch.peers))
    return replace(batch, student=student, teacher=teacher, peers=tuple(peers))


def take_rank_share(batch: MethodBatch) -> MethodBatch:
    """Returns the rows of this rank."""
    if num_ranks() == 1:
        return batch
    half = len(batch.labels) // num_ranks()
    rank_rows = slice(torch.distributed.get_rank() * half, (torch.distributed.get_rank() + 1) * half)

    def rows(outputs: Outputs) -> Outputs:
        share = map_tensors(outputs, lambda x: x[rank_rows])
        return share._replace(head=outputs.head)

    rank_batch = replace(batch, labels=batch.labels[rank_rows], index=batch.index[rank_rows])
    return map_outputs(rank_batch, rows)


def average_over_ranks(x: Tensor) -> Tensor:
    """Returns the mean over ranks, as DDP averages gradients."""
    if num_ranks() > 1:
        torch.distributed.all_reduce(x)
    return x / num_ranks()
