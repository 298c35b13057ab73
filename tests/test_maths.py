"""Each function of raykd.maths against its definition, written another way."""

import math

import gloo
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from raykd.maths import bank, ramp
from raykd.maths.contrast import EPSILON, consistency, info_nce, nce
from raykd.maths.gather import gather, num_ranks, offset

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_info_nce_is_the_mean_of_negative_log_probabilities() -> None:
    scores, first = random(3, 7), 2
    losses = []
    for i, row in enumerate(scores.tolist()):
        losses.append(-math.log(math.exp(row[first + i]) / sum(math.exp(s) for s in row)))
    assert info_nce(scores, first).item() == pytest.approx(sum(losses) / 3)


def test_consistency_is_the_divergence_of_two_softmaxes() -> None:
    scores, target = random(3, 5), random(3, 5, seed=1)
    total = 0.0
    for a, b in zip(scores.tolist(), target.tolist(), strict=True):
        p = [math.exp(x) / sum(map(math.exp, a)) for x in a]
        q = [math.exp(x) / sum(map(math.exp, b)) for x in b]
        total += sum(y * math.log(y / x) for x, y in zip(p, q, strict=True))
    assert consistency(scores, target).item() == pytest.approx(total / 3)
    assert consistency(scores, scores).item() == pytest.approx(0)


def test_nce_counts_a_negative_as_often_as_its_weight() -> None:
    positive, negative, noise = random(4).exp(), random(4, 3, seed=1).exp(), 0.3
    weight = torch.tensor([[1, 2, 0], [3, 0, 0], [1, 1, 1], [0, 1, 2]])
    total = 0.0
    for i in range(4):
        total -= math.log(positive[i] / (positive[i] + noise + EPSILON))
        for j in range(3):
            for _ in range(int(weight[i, j])):
                total -= math.log(noise / (negative[i, j] + noise + EPSILON))
    assert nce(positive, negative, weight, noise).item() == pytest.approx(total / 4)


def test_a_bank_starts_uniform_and_moves_to_unit_rows() -> None:
    torch.manual_seed(0)
    rows = bank.new_bank(50, 12)
    assert rows.abs().max() <= 0.5 and rows.abs().max() > 0.49
    before, new, index = rows.clone(), torch.randn(3, 12), torch.tensor([7, 0, 49])
    bank.update(rows, index, new, 0.25)
    for i in range(50):
        expected = before[i]
        if i in index:
            mixed = 0.25 * before[i] + 0.75 * new[index.tolist().index(i)]
            expected = mixed / mixed.pow(2).sum().sqrt()
        assert_close(rows[i], expected)


@pytest.mark.parametrize("num", [4, 6, 7, 30])
def test_draws_are_of_other_classes_and_count_to_num(num: int) -> None:
    anchors, generator = torch.tensor([2, 0, 2, 3]), torch.Generator().manual_seed(1)
    own = bank.per_sample_draw(anchors, LABELS, num, generator)
    shared = bank.shared_draw(anchors, LABELS, num, generator)
    assert own.rows.shape == own.weight.shape == (4, num)
    assert (LABELS[own.rows] != anchors[:, None]).all()
    assert len(shared.rows) == len(shared.rows.unique()) == min(num, len(LABELS))
    for i, label in enumerate(anchors):
        assert len(own.rows[i].unique()) == num or num > 6
        assert (shared.weight[i][LABELS[shared.rows] == label] == 0).all()
        assert shared.weight[i].sum().item() == pytest.approx(num)


def test_both_draws_have_the_same_expected_loss() -> None:
    """For each anchor: num times the mean over all images of other classes, written as a loop."""
    anchors, num, times = torch.tensor([2, 0, 3]), 5, 4000
    value = random(3, len(LABELS), seed=3).float()
    exact = [num * value[i][label != LABELS].mean() for i, label in enumerate(anchors)]
    generator = torch.Generator().manual_seed(0)
    for draw in (bank.per_sample_draw, bank.shared_draw):
        total = torch.zeros(3)
        for _ in range(times):
            drawn = draw(anchors, LABELS, num, generator)
            taken = value.gather(1, drawn.rows.expand(3, -1))
            total += (drawn.weight * taken).sum(dim=1)
        assert_close(total / times, torch.stack(exact), rtol=0, atol=0.1)


def test_a_shared_draw_of_all_images_has_no_variance() -> None:
    anchors, value = torch.tensor([2, 0, 3]), random(len(LABELS)).float()
    exact = torch.stack([20 * value[label != LABELS].mean() for label in anchors])
    draw = bank.shared_draw(anchors, LABELS, 20, torch.Generator().manual_seed(0))
    assert_close((draw.weight * value[draw.rows]).sum(dim=1), exact)


def test_a_shared_draw_scores_the_same_negatives_the_same() -> None:
    anchors, rows = random(3, 4), random(10, 4, seed=1)
    index, negatives = torch.tensor([1, 5, 2]), torch.tensor([0, 3, 9, 7])
    shared = bank.scores(anchors, rows, index, negatives)
    own = bank.scores(anchors, rows, index, negatives.expand(3, -1))
    for i in range(3):
        assert shared[0][i].item() == pytest.approx(sum(anchors[i] * rows[index[i]]).item())
    assert_close(shared, own)


@pytest.mark.parametrize("way", ["shared", "per_sample"])
def test_a_memory_draws_anew_each_step_and_again_after_its_state_is_loaded(way: bank.Way) -> None:
    def memory() -> bank.Memory:
        return bank.Memory(LABELS, dim=4, num=5, way=way, temperature=0.1, momentum=0.5)

    first, index, features = memory(), torch.tensor([1, 5, 2]), random(3, 4).float()
    draws = []
    for _ in range(3):
        draws.append(first.draw(index))
        first(features, features, index, draws[-1])
    assert not draws[0].rows.equal(draws[1].rows) and not draws[1].rows.equal(draws[2].rows)
    other = memory()
    other.load_state_dict(first.state_dict())
    assert other.draw(index).rows.equal(first.draw(index).rows)


def joined_loss(x: Tensor) -> Tensor:
    """Every row of this rank against the rows of all ranks; asymmetric, so rows and columns both matter."""
    keys = gather(x)
    first = offset(x)
    return info_nce(x @ keys.sin().T, first) + keys[first : first + len(x)].pow(3).mean()


def on_a_rank(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    half = len(x) // num_ranks()
    first = torch.distributed.get_rank() * half
    own = x[first : first + half].clone().requires_grad_()
    loss = joined_loss(own)
    loss.backward()
    assert own.grad is not None
    return gather(own.detach()), loss.detach(), own.grad / num_ranks()


def test_gather_makes_two_ranks_one() -> None:
    x = random(6, 3).requires_grad_()
    assert gather(x) is x and offset(x) == 0
    loss = joined_loss(x)
    loss.backward()
    ranks = gloo.run(on_a_rank, x.detach())
    for rows, _, _ in ranks:
        assert_close(rows, x.detach())
    assert_close(torch.stack([value for _, value, _ in ranks]).mean(), loss.detach())
    assert_close(torch.cat([grad for _, _, grad in ranks]), x.grad)


def fails_on_a_rank() -> None:
    raise ArithmeticError("as asked")


def test_a_failing_rank_says_why_and_the_pool_lives_on() -> None:
    with pytest.raises(RuntimeError, match=r"rank 0: (?s:.*)ArithmeticError: as asked"):
        gloo.run(fails_on_a_rank)
    assert gloo.run(num_ranks) == [2, 2]


def test_a_ramp_is_linear_then_one() -> None:
    assert [ramp.linear(p, 0.2) for p in (0.0, 0.05, 0.2, 0.9)] == pytest.approx([0, 0.25, 1, 1])
    assert ramp.linear(0.0, 0.0) == 1
