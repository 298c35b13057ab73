"""Batches with several images of a class, or several views of an image: what an epoch shows."""

from collections import Counter

import pytest
import torch

from raykd import data
from raykd.data.sampler import Grouping, check_classes, draw_epoch

LABELS = torch.cat([torch.full((count,), label) for label, count in enumerate((7, 4, 6, 5))])
SOURCE = data.Digits(images=64).make_source(
    data.load(data.Digits(images=64), data.default_root(), False), torch.device("cpu")
)


def draw(epoch: int, per_class: int = 1, views: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_epoch(epoch, 0, LABELS, Grouping(per_class, views), SOURCE)


def test_one_image_and_one_view_is_the_plain_permutation() -> None:
    positions, view_ids = draw(1)
    assert torch.equal(positions, data.epoch_permutation(1, 0, len(LABELS)))
    assert torch.equal(view_ids, data.draw_view_ids(1, 0, len(LABELS), SOURCE)[positions])


@pytest.mark.parametrize("per_class", [2, 3])
def test_groups_are_of_one_class_and_no_image_comes_twice(per_class: int) -> None:
    rows = {epoch: draw(epoch, per_class)[0] for epoch in (1, 2)}
    for positions in rows.values():
        assert len(positions) == Grouping(per_class).count_rows(LABELS)
        groups = LABELS[positions].view(-1, per_class)
        assert (groups == groups[:, :1]).all() and len(positions.unique()) == len(positions)
        of_class = Counter(LABELS[positions].tolist())
        assert of_class == {k: n // per_class * per_class for k, n in enumerate((7, 4, 6, 5))}
        assert groups[:, 0].tolist() != sorted(groups[:, 0].tolist())
    assert not torch.equal(rows[1], rows[2]) and torch.equal(rows[1], draw(1, per_class)[0])


def test_views_of_an_image_are_adjacent_and_differ() -> None:
    positions, view_ids = draw(1, per_class=2, views=2)
    assert len(positions) == Grouping(2, 2).count_rows(LABELS) == len(view_ids)
    assert torch.equal(positions[::2], positions[1::2])
    assert (view_ids[::2] != view_ids[1::2]).float().mean() > 0.8


def test_a_class_without_a_second_image_is_named() -> None:
    check_classes(LABELS, "abcd", 4)
    with pytest.raises(ValueError, match=r"images_per_class = 5: class 'b' has 4 training images$"):
        check_classes(LABELS, "abcd", 5)
    with pytest.raises(ValueError, match=r"= 6: class 'b' has 4 .* and 1 more classes have too few"):
        check_classes(LABELS, "abcd", 6)
