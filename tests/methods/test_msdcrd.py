"""MSDCRD: regions and losses written out in loops; the choice of regions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from raykd import methods
from raykd.contract.synthetic_batch import CONTEXT, STUDENT, TEACHER, make_batch
from raykd.methods import msdcrd


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax_loss(row: Tensor, positive: int, keys: list[int]) -> float:
    return -float(row[positive]) + math.log(sum(math.exp(row[k]) for k in keys))


@pytest.mark.parametrize(
    ("size", "scales", "stride", "num"),
    [(8, 3, "full", 21), (8, 3, "half", 59), (8, 1, "half", 1), (4, 3, "full", 21), (2, 3, "full", 5),
     (1, 3, "full", 1)],
)  # fmt: skip
def test_regions_are_window_means(size: int, scales: int, stride: msdcrd.Stride, num: int) -> None:
    maps, expected = normal(2, 3, size, size), []
    for window in [size // 2**k for k in range(scales) if size // 2**k]:
        hop = window if stride == "full" else max(1, window // 2)
        corners = range(0, size - window + 1, hop)
        expected += [
            maps[:, :, i : i + window, j : j + window].mean((2, 3)) for i in corners for j in corners
        ]
    means = msdcrd.regions(maps, scales, stride)
    assert means.shape == (2, num, 3)
    assert_close(means, torch.stack(expected, dim=1))


def test_region_weights_of_each_selection() -> None:
    scores = F.one_hot(torch.tensor([[0, 0, 1], [1, 0, 1]]), 2)  # verdicts of three regions of two images
    labels = torch.tensor([0, 0])
    assert msdcrd.region_weights(scores, labels, "teacher_correct").tolist() == [[1, 1, 0], [1, 1, 0]]
    assert msdcrd.region_weights(scores, labels, "weighted").tolist() == [[1, 1, 2], [1, 2, 1]]


def test_msdcrd_losses_are_those_of_loops() -> None:
    x, y, tau = normal(7, 4), normal(7, 4, seed=1), 0.3
    weight, group = torch.tensor([1.0, 2, 0, 1, 1, 0, 2]).double(), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    sample = 0.0
    for n in range(7):
        keys = [m for m in range(7) if m == n or (group[m] != group[n] and weight[m] > 0)]
        row = torch.stack([F.cosine_similarity(x[n], y[m], dim=0) / tau for m in range(7)])
        sample += float(weight[n]) * softmax_loss(row, n, keys) / float(weight.sum())
    assert msdcrd.sample_loss(x, y, weight, group, tau).item() == pytest.approx(sample)
    used, feature = [n for n in range(7) if weight[n] > 0], 0.0
    for k in range(4):
        row = torch.stack([F.cosine_similarity(x[used, k], y[used, m], dim=0) / tau for m in range(4)])
        feature += softmax_loss(row, k, [0, 1, 2, 3]) / 4
    assert msdcrd.feature_loss(x, y, weight, tau).item() == pytest.approx(feature)


def make_method(selection: msdcrd.Selection, keys: int = 1024) -> msdcrd.Method:
    torch.manual_seed(0)
    return msdcrd.Method(msdcrd.Config(align="class_scores", selection=selection, keys=keys), CONTEXT)


def test_the_msdcrd_method_pools_the_larger_map_and_scores_its_regions() -> None:
    batch = make_batch(rotations=4)
    terms, rows = make_method("all")(batch), []
    for outputs in (batch.student, batch.teacher):
        maps = F.adaptive_avg_pool2d(outputs.pooled, 3)
        assert maps.shape[2:] == (3, 3)
        cells = (
            torch.cat([maps.mean((2, 3))[:, :, None], maps.flatten(2)], dim=2).transpose(1, 2).flatten(0, 1)
        )
        rows.append(cells @ outputs.head.weight.T + outputs.head.bias)
    ones, group = torch.ones(240), batch.index.repeat_interleave(10)
    assert_close(terms["sample"], msdcrd.sample_loss(*rows, ones, group, 0.1))
    assert_close(terms["feature"], msdcrd.feature_loss(*rows, ones, 0.1))


def test_regions_of_weight_come_first_and_others_are_drawn_anew_each_step() -> None:
    method, weight = make_method("all", keys=4), torch.tensor([0, 1, 0, 1, 0, 0, 0, 0, 0.0])
    batch, draws = make_batch(), []
    for _ in range(5):
        (numbers,) = method.prepare(batch.index, 1)
        draws.append(set(method.choose_rows(weight, numbers[:9]).tolist()))
    assert all(len(draw) == 4 and draw >= {1, 3} for draw in draws)
    assert len(set(map(frozenset, draws))) > 1
    assert set(make_method("all").choose_rows(weight, numbers[:9]).tolist()) == set(range(9))


def test_msdcrd_has_no_parameter_and_contrasts_scores_only_where_channels_differ() -> None:
    same = CONTEXT._replace(student=STUDENT._replace(embedding=TEACHER.embedding))
    for context, selected in ((CONTEXT, "class_scores"), (same, "conv")):
        torch.manual_seed(0)
        method = methods.make("msdcrd", context)
        assert not list(method.parameters())
        torch.manual_seed(0)
        expected = msdcrd.Method(msdcrd.Config.model_validate({"align": selected}), context)
        batch = make_batch(context=context)
        assert_close(method(batch), expected(batch), rtol=0, atol=0)
    assert list(msdcrd.Method(msdcrd.Config(align="conv"), CONTEXT).parameters())
    other = CONTEXT._replace(teacher=TEACHER._replace(classes=6))
    with pytest.raises(ValueError, match=r"5 classes.* 6"):
        msdcrd.Method(msdcrd.Config(align="class_scores"), other)
