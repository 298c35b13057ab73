"""Each function of raykd.maths against its definition, written another way."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.oracles import peak_bytes
from torch import Tensor
from torch.testing import assert_close

from raykd.contract import gloo
from raykd.maths import bank, nce, ramp
from raykd.maths.contrast import consistency_loss, info_nce
from raykd.maths.gather import all_gather, num_ranks, rank_offset

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
    assert consistency_loss(scores, target).item() == pytest.approx(total / 3)
    assert consistency_loss(scores, scores).item() == pytest.approx(0)


@pytest.mark.parametrize("chunk", [2, 3, 100])
def test_nce_is_that_of_loops_over_the_released_formula(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """RepDistiller, crd/criterion.py. Rows of an anchor's class are left out, and the rest stand for num."""
    monkeypatch.setattr(nce, "CHUNK", chunk)
    anchors, rows = random(4, 3), random(10, 3, seed=1)
    sample, positives, num, z = torch.tensor([9, 0, 3, 7, 5]), [2, 4, 9, 5], 7, 3.0
    anchor_classes = LABELS[positives]
    k = num / 10
    for i in range(4):
        p = math.exp(anchors[i] @ rows[positives[i]]) / z
        kept = [math.exp(anchors[i] @ rows[j]) / z for j in sample.tolist() if LABELS[j] != anchor_classes[i]]
        assert 0 < len(kept) <= 5
        loss = -math.log(p / (p + k + nce.EPSILON))
        loss -= sum(math.log(k / (q + k + nce.EPSILON)) for q in kept) / len(kept) * num
        negatives = nce.Negatives(sample, LABELS[sample], anchor_classes)
        values = nce.nce(anchors, rows[positives], rows, negatives, num, torch.tensor(z).double())
        assert values[i].item() == pytest.approx(loss)
        means = nce.mean_exp(anchors, rows, negatives)
        assert means[i].item() == pytest.approx(sum(kept) / len(kept) * z)


def test_the_slope_of_the_noise_loss_is_a_finite_difference() -> None:
    rows, sample, anchor_classes = (
        random(10, 3, seed=1),
        torch.tensor([9, 0, 3, 7, 5]),
        torch.tensor([0, 3, 2, 1]),
    )
    negatives, shift = (
        nce.Negatives(sample, LABELS[sample], anchor_classes),
        torch.tensor(0.3).double(),
    )
    anchors = random(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: nce.mean_loss(x, rows, negatives, shift), anchors)
    wide = (100 * anchors.detach()).float().requires_grad_()  # exp of it is no float32
    loss = nce.mean_loss(wide, rows.float(), negatives, shift.float())
    loss.sum().backward()
    assert loss.isfinite().all() and wide.grad is not None and wide.grad.isfinite().all()


def test_an_anchor_whose_negatives_are_all_of_its_class_has_none() -> None:
    negatives = nce.Negatives(torch.tensor([0, 1]), LABELS[[0, 1]], torch.tensor([0]))
    assert nce.mean_loss(random(1, 3), random(10, 3), negatives, torch.tensor(0.0)).tolist() == [0]


def test_memory_of_a_contrast_does_not_grow_with_its_negatives() -> None:
    """Bytes at once beside bank and rows, by torch's anchor_classes count of allocations."""
    rows, anchor_classes = F.normalize(torch.randn(40000, 16), dim=1), torch.zeros(64, dtype=torch.int64)
    labels = torch.arange(40000) % 100

    def peak(num: int) -> int:
        negatives = nce.Negatives(torch.arange(num), labels[:num], anchor_classes)
        anchors = torch.randn(64, 16, requires_grad=True)
        with torch.profiler.profile(profile_memory=True) as profile:
            nce.mean_loss(anchors, rows, negatives, torch.tensor(0.0)).sum().backward()
        return peak_bytes(profile)

    assert peak(40000) < 1.1 * peak(4096) < 8 * 2**20


def test_a_bank_starts_uniform_and_moves_to_unit_rows() -> None:
    torch.manual_seed(0)
    rows = bank.init_bank(50, 12)
    assert rows.abs().max() <= 0.5 and rows.abs().max() > 0.49
    before, new, index = rows.clone(), torch.randn(3, 12), torch.tensor([7, 0, 49])
    bank.update_bank(rows, index, new, 0.25)
    for i in range(50):
        expected = before[i]
        if i in index:
            mixed = 0.25 * before[i] + 0.75 * new[index.tolist().index(i)]
            expected = mixed / mixed.pow(2).sum().sqrt()
        assert_close(rows[i], expected)


@pytest.mark.parametrize("num", [4, 6, 7, 30])
def test_draws_are_of_other_classes_and_distinct(num: int) -> None:
    anchors, generator = torch.tensor([2, 0, 2, 3]), torch.Generator().manual_seed(1)
    shared = bank.draw_shared(LABELS, num, generator)
    assert len(shared) == len(shared.unique()) == min(num, len(LABELS))
    for anchor in anchors.split(1):
        rows = bank.draw_per_sample(anchor, LABELS, num, generator)
        assert rows.shape == (num,) and (LABELS[rows] != anchor).all()
        assert len(rows.unique()) == num or num > 6


def test_both_draws_have_the_same_expected_loss() -> None:
    """For each anchor: the mean over all images of other classes, written as a loop."""
    anchor_classes, rows, anchors = torch.tensor([2, 0, 3]), random(10, 4), random(3, 4, seed=3)
    value, zero = F.softplus(anchors @ rows.T), torch.tensor(0.0).double()
    exact = torch.stack([value[i][label != LABELS].mean() for i, label in enumerate(anchor_classes)])
    generator = torch.Generator().manual_seed(0)
    total, times = torch.zeros(2, 3).double(), 1000
    for _ in range(times):
        draw = bank.draw_shared(LABELS, 5, generator)
        total[0] += nce.mean_loss(anchors, rows, nce.Negatives(draw, LABELS[draw], anchor_classes), zero)
        for k in range(3):
            own = anchor_classes[k : k + 1]
            draw = bank.draw_per_sample(own, LABELS, 5, generator)
            negatives = nce.Negatives(draw, LABELS[draw], own)
            total[1, k] += nce.mean_loss(anchors[k : k + 1], rows, negatives, zero)[0]
    assert_close(total / times, exact.expand(2, -1), rtol=0, atol=0.03)


def test_a_shared_draw_of_all_images_has_no_variance() -> None:
    anchor_classes, rows, anchors = torch.tensor([2, 0, 3]), random(10, 4), random(3, 4, seed=3)
    value = F.softplus(anchors @ rows.T)
    exact = torch.stack([value[i][label != LABELS].mean() for i, label in enumerate(anchor_classes)])
    draw = bank.draw_shared(LABELS, 20, torch.Generator().manual_seed(0))
    negatives = nce.Negatives(draw, LABELS[draw], anchor_classes)
    assert_close(nce.mean_loss(anchors, rows, negatives, torch.tensor(0.0).double()), exact)


@pytest.mark.parametrize("sampling", ["shared", "per_sample"])
def test_a_memory_bank_draws_anew_each_step_and_again_after_loading(
    sampling: bank.Sampling,
) -> None:
    def make_bank() -> bank.MemoryBank:
        return bank.MemoryBank(LABELS, dim=4, num=5, sampling=sampling, temperature=0.1, momentum=0.5)

    first, index, features = make_bank(), torch.tensor([1, 5, 2]), random(3, 4).float()
    draws = []
    for _ in range(3):
        rows = first.draw(index)
        draws.append(rows.tolist())
        first(features, features, index, rows)
    assert draws[0] != draws[1] != draws[2] and rows.shape == ((5,) if sampling == "shared" else (3, 5))
    other = make_bank()
    other.load_state_dict(first.state_dict())
    assert other.draw(index).equal(first.draw(index))


def global_loss(x: Tensor) -> Tensor:
    """Every row of this rank against the rows of all ranks; asymmetric, so rows and columns both matter."""
    keys = all_gather(x)
    first = rank_offset(x)
    return info_nce(x @ keys.sin().T, first) + keys[first : first + len(x)].pow(3).mean()


def run_rank(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    half = len(x) // num_ranks()
    first = torch.distributed.get_rank() * half
    rank_rows = x[first : first + half].clone().requires_grad_()
    loss = global_loss(rank_rows)
    loss.backward()
    assert rank_rows.grad is not None
    return all_gather(rank_rows.detach()), loss.detach(), rank_rows.grad / num_ranks()


@pytest.mark.slow
def test_gather_makes_two_ranks_one() -> None:
    x = random(6, 3).requires_grad_()
    assert all_gather(x) is x and rank_offset(x) == 0
    loss = global_loss(x)
    loss.backward()
    ranks = gloo.run(run_rank, x.detach())
    for rows, _, _ in ranks:
        assert_close(rows, x.detach())
    assert_close(torch.stack([value for _, value, _ in ranks]).mean(), loss.detach())
    assert_close(torch.cat([grad for _, _, grad in ranks]), x.grad)


def fail() -> None:
    raise ArithmeticError("on purpose")


def test_a_failing_rank_says_why_and_the_pool_lives_on() -> None:
    with pytest.raises(RuntimeError, match=r"rank 0: (?s:.*)ArithmeticError: on purpose"):
        gloo.run(fail)
    assert gloo.run(num_ranks) == [2, 2]


def test_a_ramp_is_linear_then_one() -> None:
    assert ramp.linear(torch.tensor([0.0, 0.05, 0.2, 0.9]), 0.2).tolist() == pytest.approx([0, 0.25, 1, 1])
    assert ramp.linear(torch.tensor(0.0), 0.0) == 1
