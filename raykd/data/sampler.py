"""Which images and views an epoch shows, and in which order: the same on every rank and device.

Images come in groups that lie in one batch: `per_class` images of a class, each by `views` views of its own.
An image comes at most once an epoch (by its views): what does not fill a class's last group, and the odd rest
of the groups, are left out; they are others in each epoch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raykd.data._base import Source, draw_view_ids, epoch_permutation, make_generator


class Grouping(NamedTuple):
    """What stands together in a batch."""

    per_class: int = 1  # images of a class
    views: int = 1  # rows of an image

    @property
    def size(self) -> int:
        """Rows of a group."""
        return self.per_class * self.views

    def count_rows(self, labels: Tensor) -> int:
        """Returns the rows of an epoch before batches are cut."""
        if self.per_class == 1:
            return len(labels) * self.views
        return int((labels.bincount() // self.per_class).sum()) * self.size


def check_classes(labels: Tensor, classes: Sequence[str], per_class: int) -> None:
    """ValueError that names a class of fewer images than stand together."""
    counts = labels.bincount(minlength=len(classes)).tolist()
    if lacking := [(name, n) for name, n in zip(classes, counts, strict=True) if n < per_class]:
        name, count = lacking[0]
        others = f", and {len(lacking) - 1} more classes have too few" if len(lacking) > 1 else ""
        raise ValueError(
            f"optimizer/images_per_class = {per_class}: class '{name}' has {count} training "
            f"image{'s' * (count != 1)}{others}"
        )


def draw_epoch(
    epoch: int, seed: int, labels: Tensor, grouping: Grouping, source: Source[Any]
) -> tuple[Tensor, Tensor]:
    """Returns the rows of an epoch (1-based): positions of images [rows], their view ids [rows, r].

    Labels [images] lie on the host.
    """
    positions = _order(epoch, seed, labels, grouping.per_class)
    count = len(labels)
    if grouping.views == 1:
        return positions, draw_view_ids(epoch, seed, count, source)[positions]
    view_ids = draw_view_ids(epoch, seed, count * grouping.views, source).view(count, grouping.views, -1)
    return positions.repeat_interleave(grouping.views), view_ids[positions].flatten(0, 1)


def _order(epoch: int, seed: int, labels: Tensor, per_class: int) -> Tensor:
    if per_class == 1:
        return epoch_permutation(epoch, seed, len(labels))
    generator = make_generator(seed, epoch, 0)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]  # within its class
    groups = by_class[rank < (counts // per_class * per_class)[labels[by_class]]].view(-1, per_class)
    return groups[torch.randperm(len(groups), generator=generator)].flatten()
