"""One linear probe: its settings, a frozen net's features, the head that is trained on them.

Legend: n images of a batch, d width of the embedding.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.data import AnyData, Dataset, Source, draw_view_ids, epoch_permutation
from raykd.spec import Spec
from raykd.study.optimizer import Optimizer, Schedule, StepDecay

EmbeddedBatch = tuple[Tensor, Tensor]  # embedding [n, d], labels [n]


class Probe(Spec):
    """What is probed on, and how. The defaults are the protocol's, but for batch_norm."""

    data: AnyData
    epochs: Annotated[int, Field(ge=1)] = 120
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = StepDecay(milestones=(0.25, 0.5, 0.75))
    batch_norm: Literal["frozen", "released"] = "frozen"
    seeds: Annotated[int, Field(ge=1)] = 3


class Features:
    """A net's embeddings of a data set. `moving`: batch norms in training mode while the head learns."""

    def __init__(
        self, net: nn.Module, moving: bool, dataset: Dataset[Any], source: Source[Any], device: torch.device
    ) -> None:
        self.net = net.requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self._moving, self._source = moving, source
        self.dataset, self.device = dataset, device
        self._labels = dataset.train.labels.to(device)

    @cached_property
    def width(self) -> int:
        """d, the width of the embedding."""
        embedding, _ = next(self._evaluation_batches(self.dataset.test.take(torch.arange(1))))
        return embedding.shape[1]

    @cached_property
    def _train_embeddings(self) -> Tensor | None:
        """The embeddings of all training images, where they have one view each and nothing moves."""
        if self._moving or self._source.num_views > 1:
            return None
        return torch.cat([embedding for embedding, _ in self._evaluation_batches(self.dataset.train)])

    @cached_property
    def _test_embeddings(self) -> list[EmbeddedBatch]:
        return list(self._evaluation_batches(self.dataset.test))

    def training_batches(self, epoch: int, seed: int, batch_size: int) -> Iterator[EmbeddedBatch]:
        """Yields the training images of an epoch, shuffled and augmented; the odd rest is left out."""
        count = len(self._labels)
        size = min(batch_size, count)
        positions = epoch_permutation(epoch, seed, count)[: count // size * size].view(-1, size)
        if self._train_embeddings is not None:
            for batch_positions in positions.to(self.device):
                yield self._train_embeddings[batch_positions], self._labels[batch_positions]
            return
        self.net.train(self._moving)
        view_ids = draw_view_ids(epoch, seed, count, self._source)
        for batch in self._source.batches(positions, view_ids[positions]):
            yield self._embed(batch.images), batch.labels

    def test_batches(self) -> Iterator[EmbeddedBatch]:
        """Returns the test images as they are, in batches."""
        return self._evaluation_batches(self.dataset.test) if self._moving else iter(self._test_embeddings)

    def _evaluation_batches(self, part: Any) -> Iterator[EmbeddedBatch]:
        self.net.eval()
        for images, labels in self._source.evaluation_batches(part, 0, 1):
            yield self._embed(images), labels

    @torch.no_grad()
    def _embed(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.net(images).embedding
        return embedding


def measure_accuracy(features: Features, settings: Probe, seed: int) -> float:
    """Returns the top-1 accuracy of a linear head on the test set after its last epoch, %."""
    head = train_head(features, settings, seed)
    correct = torch.zeros((), dtype=torch.int64, device=features.device)
    for embedding, labels in features.test_batches():
        correct += (head(embedding).argmax(1) == labels).sum()
    return 100 * correct.item() / len(features.dataset.test.labels)


def train_head(features: Features, settings: Probe, seed: int) -> nn.Linear:
    """Returns a linear head trained on the features; at first weights from N(0, 0.01^2), biases 0."""
    torch.manual_seed(seed)
    head = nn.Linear(features.width, len(features.dataset.classes))
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    head.to(features.device)
    optimizer = settings.optimizer.make(head)
    for epoch in range(1, settings.epochs + 1):
        lr = settings.optimizer.lr * settings.schedule.scale(epoch, settings.epochs)
        for group in optimizer.param_groups:
            group["lr"] = lr
        for embedding, labels in features.training_batches(epoch, seed, settings.optimizer.batch_size):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(F.cross_entropy(head(embedding), labels))
            optimizer.step()
    return head
