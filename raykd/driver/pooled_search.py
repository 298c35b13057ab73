"""Several searches on one cluster: one Ray Tune experiment whose trials are theirs.

Why one experiment: places are then dealt out by one hand, at the moment at which one is free, and a trial may
run in the process that another method's has left. Each search stays an ordinary run of its own.
"""

from collections.abc import Callable, Sequence
from statistics import median_low, mode
from typing import Any

from ray.tune.search import Searcher

from raykd.driver.searcher import StudySearch
from raykd.spec import Choice, Scalar
from raykd.store.run_files import RunFiles
from raykd.store.status import rank_trials

SHARED = "shared"  # the role of a trial that tries what other methods have learnt
SHARE_AT = (0.25, 0.5)  # the parts of its budget after which a search tries that
MIN_ENDED = 2  # trials by which a search has learnt something beside its paper's point


class PooledSearch(Searcher):
    """Deals out places to searches, and passes on what Tune and the scheduler say of their trials.

    Args:
        searches: Of the methods; their trials take equally much of the cluster.
        run_files: Of the run, or the comparison, that holds them.
        num_slots: How many trials may run at once, of all together.
        share: Whether a search tries what others have learnt of the fields that it has in common with them.
    """

    def __init__(
        self,
        searches: Sequence[StudySearch],
        run_files: RunFiles,
        num_slots: Callable[[], int],
        share: bool = False,
    ) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.searches, self.run_files = searches, run_files
        self._num_slots, self._share = num_slots, share
        self._owners: dict[str, StudySearch] = {}  # of running trials, by Tune's ids

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next trial's config: of the search that is least far through its budget.

        So whenever a comparison is stopped, its methods have used up about the same part of their budgets,
        whatever a trial of each takes.
        """
        if self._owners and len(self._owners) >= self._num_slots():
            return None
        for search in sorted(self.searches, key=StudySearch.budget_part):
            if self._share:
                offer_shared_point(search, self.searches)
            config = search.suggest(trial_id)
            if isinstance(config, dict):
                self._owners[trial_id] = search
                return config
        return Searcher.FINISHED if all(search.is_done() for search in self.searches) else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Does nothing: OptunaPruningScheduler gets each result first and calls `record_epoch`."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Passes on a trial's end."""
        if (search := self._owners.pop(trial_id, None)) is not None:
            search.on_trial_complete(trial_id, result, error)

    def record_epoch(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Passes on an epoch's accuracy; returns whether the trial should be stopped at it."""
        return self._owners[trial_id].record_epoch(trial_id, result)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the searches' journals hold their state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, as `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def offer_shared_point(search: StudySearch, searches: Sequence[StudySearch]) -> None:
    """Lets a search try next what others have learnt, once after each part of its budget in SHARE_AT."""
    part = search.budget_part()
    num_due = sum(part >= limit for limit in SHARE_AT)
    if num_due and search.count_role(SHARED) < num_due and (point := make_shared_point(search, searches)):
        search.enqueue(point, SHARED)


def make_shared_point(search: StudySearch, searches: Sequence[StudySearch]) -> dict[str, Scalar] | None:
    """Returns a search's best point so far with the values that the other searches' best points have.

    Of each field beside the method's own, the median of the others (of a choice: what most of them have).

    Returns:
        None where the others have learnt nothing yet, or it was tried.
    """
    rows = list(search.rows.values())
    point = dict(next((row["params"] for row in rank_trials(rows)), search.study.paper_point()))
    others = [other for other in searches if other is not search and other.num_ended() >= MIN_ENDED]
    ranked = [rank_trials(list(other.rows.values())) for other in others]
    best_points = [trials[0]["params"] for trials in ranked if trials]
    if not best_points:
        return None
    for path, dimension in search.space.items():
        values = [best[path] for best in best_points if dimension.contains(best.get(path))]
        if path.startswith("method/") or path not in point or not values:
            continue
        point[path] = mode(values) if isinstance(dimension, Choice) else median_low(values)
    return None if point in [row["params"] for row in rows] else point
