"""The first rung that a run's own curves allow."""

from raykd.study.rungs import recommend_first_rung


def test_the_first_rung_is_the_earliest_from_which_on_all_rank_well() -> None:
    assert recommend_first_rung({1: 0.1, 2: 0.6, 3: 0.4, 4: 0.5, 5: 0.9}) == 4
    assert recommend_first_rung({1: 0.7, 2: 0.8}) == 1
    assert recommend_first_rung({1: 0.9, 2: 0.2}) is None and recommend_first_rung({}) is None
