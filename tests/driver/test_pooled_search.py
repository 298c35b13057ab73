"""Searches of several methods on one cluster of a simulated clock: places, budgets, what they share."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raykd.driver.pooled_search import PooledSearch, make_shared_point
from raykd.driver.searcher import StudySearch
from raykd.store.run_files import RunFiles
from raykd.store.status import device_hours
from raykd.study.comparison import Comparison

EPOCHS = 4
SECONDS = {"ce": 2.0, "kd": 5.0, "dcd": 17.0}  # of an epoch
PLAIN: dict[str, Any] = {
    "name": "three",
    "methods": ["dcd"],
    "recipe": {
        "data": {"name": "digits", "images": 320},
        "teacher": {"net": "resnet14", "train": {"epochs": 1}},
        "student": {"net": "resnet8"},
        "epochs": EPOCHS,
        "optimizer": {"batch_size": 32, "lr": 0.01},  # 0.05 is best
    },
    "space": {
        "optimizer/lr": {"low": 0.005, "high": 0.5, "log": True},
        "optimizer/nesterov": {"choices": [False, True]},
    },
    "search": {"sampler": {"kind": "random"}, "pruner": {"kind": "halving", "min_fraction": 0.25, "eta": 2}},
    "cluster": {"cpus": 1, "gpus": 0},
}


@dataclass
class Clock:
    """Stands in for the module `time` of the searchers."""

    now: float = 0.0
    running: list[int] = field(default_factory=list)  # trials, at every change
    begun: list[list[int]] = field(default_factory=list)  # trials of each method, at every change

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for name in ("searcher", "end_of_search"):
        monkeypatch.setattr(f"raykd.driver.{name}.time", clock)
    return clock


def open_pool(folder: Path, slots: int, budget: dict[str, Any], share: bool = False) -> PooledSearch:
    comparison, owner = Comparison.parse(PLAIN | {"budget": budget}, "three"), RunFiles(str(folder))

    def open_search(method: str) -> StudySearch:
        study, run_files = comparison.studies()[method], owner.method_run(method)
        if not run_files.exists():
            run_files.begin(study.to_dict())
        make_config: Callable[..., Any] = lambda number, params: {"number": number, "method": method}  # noqa: E731
        return StudySearch(study, run_files, make_config, lambda: slots, lambda row: None)

    return PooledSearch([open_search(method) for method in SECONDS], owner, lambda: slots, share)


def get_search(pool: PooledSearch, method: str) -> StudySearch:
    return next(search for search in pool.searches if search.run_files.name == method)


def run(pool: PooledSearch, clock: Clock, until: float = math.inf) -> None:
    """What Tune would do until a time, at which the driver is killed."""
    ends: list[tuple[float, str, str, int]] = []  # of epochs: (time, Tune's id, method, trial)
    number = 0
    while True:
        while isinstance(config := pool.suggest(f"t{number}"), dict):
            method = config["method"]
            heapq.heappush(ends, (clock.now + SECONDS[method], f"t{number}", method, config["number"]))
            number += 1
        clock.running.append(len(ends))
        clock.begun.append([len(search.rows) for search in pool.searches])
        if not ends or ends[0][0] > until:
            return
        clock.now, name, method, trial = heapq.heappop(ends)
        row = get_search(pool, method).rows[trial]
        epoch = row["epochs"] + 1
        best = 80 - 20 * abs(math.log(row["params"]["optimizer/lr"] / 0.05))
        result = {"epoch": epoch, "accuracy": best * (1 - 0.5**epoch), "final": epoch == EPOCHS}
        result |= {"seconds": SECONDS[method], "parameters": 1000}
        if pool.record_epoch(name, result) or result["final"]:
            pool.on_trial_complete(name, result)
        else:
            heapq.heappush(ends, (clock.now + SECONDS[method], name, method, trial))


def spent_seconds(search: StudySearch) -> float:
    return 3600 * device_hours(search.study.to_dict(), list(search.rows.values()))


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "kills"), [(2, (100.0, 313.0, 420.0)), (7, ()), (7, (100.0, 150.0))])
def test_methods_of_unlike_speed_get_the_same_device_hours_whatever_is_killed(
    tmp_path: Path, clock: Clock, slots: int, kills: tuple[float, ...]
) -> None:
    budget = {"trials": 1000, "device_hours": 400 / 3600}
    for kill in kills:
        run(open_pool(tmp_path / "run", slots, budget), clock, kill)
        clock.now += 86_400  # a night
    pool = open_pool(tmp_path / "run", slots, budget)
    run(pool, clock)
    for search in pool.searches:
        trial_seconds = EPOCHS * SECONDS[search.run_files.name]
        assert 400 <= spent_seconds(search) < 400 + trial_seconds
        assert search.is_done() and search.end_reason.startswith("budget/device_hours")
        assert not [row for row in search.rows.values() if row["state"] == "RUNNING"]
    assert pool.suggest("more") == "FINISHED"
    numbers = [search.num_ended() for search in pool.searches]
    assert numbers == sorted(numbers, reverse=True) and numbers[0] > 2 * numbers[1] > 4 * numbers[2]


@pytest.mark.slow
def test_methods_are_equally_far_through_their_trials_and_no_place_stays_empty(
    tmp_path: Path, clock: Clock
) -> None:
    pool = open_pool(tmp_path / "run", 6, {"trials": 12})
    run(pool, clock)
    assert clock.begun[-1] == [12, 12, 12] and len(clock.begun) > 36
    assert all(max(counts) - min(counts) <= 1 for counts in clock.begun)
    all_begun = clock.begun.index([12, 12, 12])
    assert set(clock.running[:all_begun]) == {6}


@pytest.mark.slow
def test_with_fewer_places_than_methods_they_spend_equally_much(tmp_path: Path, clock: Clock) -> None:
    pool = open_pool(tmp_path / "run", 2, {"trials": 1000, "device_hours": 1})
    run(pool, clock, 600)
    seconds = [spent_seconds(search) for search in pool.searches]
    assert max(seconds) - min(seconds) < EPOCHS * max(SECONDS.values()) and min(seconds) > 300


@pytest.mark.slow
def test_methods_try_what_the_others_learnt_twice_and_never_again_after_a_kill(
    tmp_path: Path, clock: Clock
) -> None:
    for kill in (60.0, 130.0, 200.0, math.inf):
        pool = open_pool(tmp_path / "run", 3, {"trials": 12}, share=True)
        run(pool, clock, clock.now + kill)
    for search in pool.searches:
        rows = list(search.rows.values())
        shared = [row for row in rows if row["role"] == "shared"]
        assert 1 <= len(shared) <= 2 and len(rows) == 12 and search.count_role("shared") == len(shared)
        assert min(row["number"] for row in shared) >= 3  # a quarter of its trials
        learnt = {row["params"]["optimizer/lr"] for other in pool.searches for row in other.rows.values()}
        assert all(row["params"]["optimizer/lr"] in learnt for row in shared)


def test_a_shared_point_is_the_best_own_with_the_fields_that_others_found_best(
    tmp_path: Path, clock: Clock
) -> None:
    pool = open_pool(tmp_path / "run", 1, {"trials": 12})
    ce, kd, dcd = pool.searches
    assert make_shared_point(dcd, pool.searches) is None  # nobody has learnt anything
    for search, lrs in ((ce, (0.02, 0.03)), (kd, (0.2, 0.1)), (dcd, (0.05, 0.4))):
        for lr, accuracy in zip(lrs, (50.0, 60.0), strict=True):
            number = len(search.rows)
            params = search.study.paper_point() | {"optimizer/lr": lr, "optimizer/nesterov": True}
            row = {"number": number, "params": params, "accuracy": accuracy, "state": "COMPLETE"}
            search.rows[number] = row | {"seconds": 1.0, "epochs": EPOCHS}
    assert make_shared_point(dcd, [ce, dcd]) == dcd.rows[1]["params"] | {"optimizer/lr": 0.03}
    shared_point = make_shared_point(ce, pool.searches)
    assert shared_point == {"optimizer/lr": 0.1, "optimizer/nesterov": True}  # the lower of two medians
    ce.rows[1]["params"] = shared_point
    assert make_shared_point(ce, pool.searches) is None  # tried
