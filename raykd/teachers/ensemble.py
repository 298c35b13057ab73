"""Several teachers as one: their logits, averaged with weights.

Each keeps a cache of its own, which it shares with the studies where it teaches alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raykd import models
from raykd.batch import Batch, Outputs, OutputShapes, Wrap, empty_outputs
from raykd.teachers.teacher import CacheStats, Teacher


def average_logits(logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Returns the mean [n, c], float32, of several logits [n, c]; weights need not add up to 1."""
    total = sum(weights)
    return torch.stack([z.float() * (w / total) for z, w in zip(logits, weights, strict=True)]).sum(0)


def merge_shapes(shapes: Sequence[OutputShapes]) -> OutputShapes:
    """Returns the shapes of one teacher's outputs, or of several: logits alone; of none: nothing."""
    if len(shapes) == 1:
        return shapes[0]
    return OutputShapes(shapes[0].classes if shapes else 0, 0, ())


class EnsembleTeacher:
    """Gives the weighted mean of the teachers' logits, and those of each."""

    def __init__(self, teachers: Sequence[Teacher], weights: Sequence[float]) -> None:
        self.shapes = merge_shapes([teacher.shapes for teacher in teachers])
        self.teachers, self._weights = teachers, weights

    @property
    def cache_stats(self) -> CacheStats:
        """What the caches of all have given: a view counts once for each teacher."""
        stats = [teacher.cache_stats for teacher in self.teachers]
        return CacheStats(
            sum(s.hits for s in stats), sum(s.misses for s in stats), sum(s.seconds_saved for s in stats)
        )

    def get_outputs(self, batch: Batch) -> Outputs:
        """Returns the logits of each view in the batch."""
        logits = [teacher.get_outputs(batch).logits for teacher in self.teachers]
        outputs = empty_outputs(len(batch.images), batch.images.device)
        mean = average_logits(logits, self._weights)
        return outputs._replace(logits=mean, each_logits=tuple(logits))

    def wrap(self, wrap: Wrap) -> None:
        """Has each teacher's forward pass wrapped."""
        for teacher in self.teachers:
            teacher.wrap(wrap)


class EnsembleNet(nn.Module):
    """The teachers as one net, for the analysis: mean logits, and all embeddings side by side."""

    def __init__(self, nets: Sequence[models.Net], weights: Sequence[float]) -> None:
        super().__init__()
        self.nets, self._weights = nn.ModuleList(nets), weights

    def forward(self, images: Tensor) -> Outputs:
        """Returns logits [n, c] and embeddings [n, sum of widths] of images [n, 3, size, size]."""
        outputs: list[Outputs] = [net(images) for net in self.nets]
        logits = average_logits([o.logits for o in outputs], self._weights)
        embedding = torch.cat([o.embedding for o in outputs], dim=1)
        return empty_outputs(len(images), images.device)._replace(logits=logits, embedding=embedding)
