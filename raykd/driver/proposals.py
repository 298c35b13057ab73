"""The points of new trials: what waits in the Optuna study, else what the sampler proposes.

A sampler is made anew for every trial from (seed, number of the trial): what it proposes depends on the
history alone, so a study that was interrupted proposes what an uninterrupted one would. A trial and its point
are one transaction of the journal. A database has no such transactions: where a driver was killed between the
two, `draw_again` draws the point that would have been drawn.

Where a study has constraints, a proposed student that breaks one is told to Optuna, pruned, with by how much;
the same point with another student is tried instead.
"""

import random
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from raykd.driver.distributions import suggest
from raykd.driver.first_objective import FirstObjectiveStudy
from raykd.driver.optuna_storage import TrialStorage
from raykd.driver.rungs_gp import KEPT_GAINS, read_expected_gains
from raykd.driver.samplers import make_sampler
from raykd.spec import Choice, Dimension, Scalar
from raykd.study.constraints import format_excess, get_excess
from raykd.study.space import count_points, draw
from raykd.study.study import Study


class Proposals:
    """Draws points.

    Args:
        study: The study.
        optuna_study: Where its trials are asked for.
        storage: Of the Optuna study.
        students: What those of the space cost, where the study has constraints.
    """

    def __init__(
        self,
        study: Study,
        optuna_study: FirstObjectiveStudy,
        storage: TrialStorage,
        students: list[dict[str, Any]],
    ) -> None:
        self._study, self._space = study, study.search_space()
        self._optuna_study, self._storage = optuna_study, storage
        self._students = students
        self._allowed = [student["params"] for student in students if not format_excess(student)]
        self.num_points = count_points(self._space)  # None where they are not countable
        if students and self.num_points is not None:
            self.num_points = self.num_points * len(self._allowed) // len(students)

    def draw(self, rows: list[dict[str, Any]]) -> tuple[int, str, dict[str, Scalar]]:
        """Returns a new trial's number, role and point.

        Where the points are countable, none of the trials in `rows` is repeated; there must be one left.
        """
        tried = self._identify_points(rows)
        while True:
            with self._storage.transaction():
                trial = self._ask()
                params = self._draw_point(trial)
                role = trial.user_attrs.get("role", "searched")
                if role == "searched" and not self._is_allowed(params):
                    allowed = random.Random(trial.number).choice(self._allowed)
                    self._reject(trial, "not allowed", TrialState.PRUNED)
                    self._optuna_study.enqueue_trial(params | allowed)
                elif self.num_points is None or _identify(self._space, params) not in tried:
                    return trial.number, role, params
                else:
                    self._reject(trial, "duplicate", TrialState.FAIL)
                    if not self._optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                        self._optuna_study.enqueue_trial(self._draw_untried(trial.number, tried))

    def draw_again(self, number: int) -> tuple[str, dict[str, Scalar]]:
        """Returns the role and the point of a running trial, drawn now as far as it was not."""
        self._storage.return_to_queue(number)
        trial = self._ask()
        assert trial.number == number, (trial.number, number)  # no earlier one waits
        return trial.user_attrs.get("role", "searched"), self._draw_point(trial)

    def are_used_up(self, rows: list[dict[str, Any]]) -> bool:
        """Returns whether every point of a space that has countably many was tried."""
        allowed = [row for row in rows if not row.get("breaks")]
        return self.num_points is not None and len(self._identify_points(allowed)) >= self.num_points

    def describe_small_gains(self) -> str:
        """Returns in words that the model expects too little of another trial; else ""."""
        tolerance, gains = self._study.search.tolerance, read_expected_gains(self._optuna_study)
        if tolerance is None or len(gains) < KEPT_GAINS or max(gains) >= tolerance:
            return ""
        return f"search/tolerance = {tolerance:g}: the model expects {gains[-1]:.2g} points of another trial"

    def _ask(self) -> Trial:
        trials = self._optuna_study.get_trials(deepcopy=False)
        number = next((trial.number for trial in trials if trial.state == TrialState.WAITING), len(trials))
        self._optuna_study.sampler = make_sampler(self._study, number)
        return self._optuna_study.ask()

    def _draw_point(self, trial: Trial) -> dict[str, Scalar]:
        """The point of a trial, of which Optuna learns by how much it is over each constraint."""
        params = draw(self._space, lambda path, dimension: suggest(trial, path, dimension))
        for name, excess in get_excess(self._students, params).items():
            if name not in trial.constraints:
                trial.set_constraint(name, excess)
        return params

    def _is_allowed(self, params: dict[str, Scalar]) -> bool:
        return max(get_excess(self._students, params).values(), default=0.0) <= 0

    def _reject(self, trial: Trial, role: str, state: TrialState) -> None:
        self._storage.set_user_attr(trial.number, "role", role)
        self._optuna_study.tell(trial.number, state=state)

    def _draw_untried(self, number: int, tried: set[tuple[Any, ...]]) -> dict[str, Scalar]:
        random_study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
        while True:
            params = self._draw_point(random_study.ask())
            if _identify(self._space, params) not in tried and self._is_allowed(params):
                return params

    def _identify_points(self, rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
        if self.num_points is None:
            return set()
        return {_identify(self._space, row["params"]) for row in rows}


def _identify(space: dict[str, Dimension], params: dict[str, Scalar]) -> tuple[Any, ...]:
    """A point of a space of countably many points: on a range, the number of steps above its low end."""
    return tuple((path, _count_steps(space[path], value)) for path, value in sorted(params.items()))


def _count_steps(dimension: Dimension, value: Any) -> Any:
    if isinstance(dimension, Choice):
        return value
    return round((value - dimension.low) / (dimension.step or 1))
