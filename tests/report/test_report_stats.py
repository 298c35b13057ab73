"""What a report computes: importances, intervals, paired differences, rank correlations."""

import numpy as np
import pytest
from support.fake_report import make_run

from raykd.report.stats import tests
from raykd.report.stats.importances import compute_importances, scale_to_unit
from raykd.spec import Choice, Range


def test_importances_find_the_field_that_decides() -> None:
    importances = compute_importances(make_run(120, budget=4))
    assert not isinstance(importances, str)
    assert importances.rows[0].path == "optimizer/lr"
    assert importances.rows[0].low > 0
    assert importances.error < importances.baseline
    assert all(row.low <= row.mean <= row.high for row in importances.rows)


def test_a_value_on_the_scale_of_its_range() -> None:
    assert scale_to_unit(Range(0.01, 1, log=True), 0.1) == pytest.approx(0.5)
    assert scale_to_unit(Range(2, 4), 3) == pytest.approx(0.5)
    assert scale_to_unit(Choice(("a", "b", "c")), "c") == 1.0
    assert np.isnan(scale_to_unit(Range(2, 4), "fast"))
    assert np.isnan(scale_to_unit(Choice((1, 2)), 3))


def test_intervals_and_paired_differences_by_hand() -> None:
    mean = tests.mean_interval([1.0, 2.0, 3.0])
    assert (mean.n, mean.mean) == (3, 2.0)
    assert mean.half_width == pytest.approx(4.302653 / np.sqrt(3))
    assert tests.mean_interval([1.0]).half_width is None
    pair = tests.paired_t_test({0: 2.0, 1: 4.0, 2: 6.5, 7: 99.0}, {0: 1.0, 1: 2.0, 2: 3.5, 8: 0.0})
    assert pair is not None
    assert (pair.n, pair.mean) == (3, 2.0)
    assert pair.p == pytest.approx(0.0742, abs=1e-4)  # t = 2 sqrt(3), 2 degrees of freedom
    assert tests.paired_t_test({0: 1.0}, {1: 1.0}) is None
    assert tests.holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]


def test_rank_correlation_is_that_of_scipy_and_needs_enough_trials() -> None:
    correlation = tests.spearman([1, 2, 3, 4, 5], [1, 3, 2, 4, 5])
    assert correlation is not None
    assert correlation.rho == pytest.approx(0.9)
    assert correlation.low < 0.9 < correlation.high
    assert tests.spearman([1, 2, 3], [1, 2, 3]) is None
    assert tests.spearman([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    rows = tests.rank_correlations(make_run())
    assert rows[-1].ema.rho > 0.95
    assert rows[-1].epoch == 23


def test_differences_that_are_all_the_same_have_no_p_value() -> None:
    pair = tests.paired_t_test({1: 80.3, 2: 81.1}, {1: 80.0, 2: 80.8})
    assert pair is not None and pair.p is None
