"""What a report computes: importances, intervals, paired differences, rank correlations."""

import numpy as np
import pytest
from support.fake_report import made

from raykd.report.stats import tests
from raykd.report.stats.importances import importances, unit
from raykd.spec import Choice, Range


def test_importances_find_the_field_that_decides() -> None:
    found = importances(made(120, budget=4))
    assert not isinstance(found, str)
    assert found.rows[0].path == "optimizer/lr"
    assert found.rows[0].low > 0
    assert found.error < found.baseline
    assert all(row.low <= row.mean <= row.high for row in found.rows)


def test_a_value_on_the_scale_of_its_range() -> None:
    assert unit(Range(0.01, 1, log=True), 0.1) == pytest.approx(0.5)
    assert unit(Range(2, 4), 3) == pytest.approx(0.5)
    assert unit(Choice(("a", "b", "c")), "c") == 1.0
    assert np.isnan(unit(Range(2, 4), "fast"))
    assert np.isnan(unit(Choice((1, 2)), 3))


def test_intervals_and_paired_differences_by_hand() -> None:
    mean = tests.mean_interval([1.0, 2.0, 3.0])
    assert (mean.n, mean.mean) == (3, 2.0)
    assert mean.half == pytest.approx(4.302653 / np.sqrt(3))
    assert tests.mean_interval([1.0]).half is None
    pair = tests.paired({0: 2.0, 1: 4.0, 2: 6.5, 7: 99.0}, {0: 1.0, 1: 2.0, 2: 3.5, 8: 0.0})
    assert pair is not None
    assert (pair.n, pair.mean) == (3, 2.0)
    assert pair.p == pytest.approx(0.0742, abs=1e-4)  # t = 2 sqrt(3), 2 degrees of freedom
    assert tests.paired({0: 1.0}, {1: 1.0}) is None
    assert tests.holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]


def test_rank_correlation_is_that_of_scipy_and_needs_enough_trials() -> None:
    found = tests.spearman([1, 2, 3, 4, 5], [1, 3, 2, 4, 5])
    assert found is not None
    assert found.rho == pytest.approx(0.9)
    assert found.low < 0.9 < found.high
    assert tests.spearman([1, 2, 3], [1, 2, 3]) is None
    assert tests.spearman([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    rows = tests.rank_correlations(made())
    assert rows[-1].averaged.rho > 0.95
    assert rows[-1].epoch == 23


def test_differences_that_are_all_the_same_have_no_p_value() -> None:
    pair = tests.paired({1: 80.3, 2: 81.1}, {1: 80.0, 2: 80.8})
    assert pair is not None and pair.p is None
