"""A search on a simulated asynchronous clock: four workers, and trainings that the surrogate answers."""

import heapq
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from search_bench.regimes import Regime
from search_bench.surrogate import STEPS, Outcome

from raykd.driver.searcher import StudySearch
from raykd.store.run_files import RunFiles
from raykd.study.rungs import list_levels
from raykd.study.study import Study

WORKERS = 4


class Job(NamedTuple):
    """What a worker is to train: a point, from the step after `begin` to `end`."""

    params: dict[str, Any]
    begin: int = 0
    end: int = STEPS


class Search(Protocol):
    """A searcher, ours or a peer's."""

    def suggest(self, name: str) -> Job | None: ...

    def report(self, name: str, step: int, accuracy: float, seconds: float) -> bool:
        """Whether the trial stops at this step."""

    def end(self, name: str, step: int, accuracy: float) -> None: ...

    def diverge(self, name: str) -> None: ...

    def close(self) -> None: ...


class OurSearch:
    """The real StudySearch with its journal, in a folder of its own.

    Epochs at which nothing is judged are not reported: they change nothing, and take most of the time.
    """

    def __init__(self, regime: Regime, search: dict[str, Any], folder: str) -> None:
        study = Study.parse(make_study(regime, search), "bench")
        self._levels = list_levels(study)
        self._run_files = RunFiles(f"{folder}/run")
        self._run_files.begin(study.to_dict())
        self.searcher = StudySearch(
            study, self._run_files, lambda number, params: params, lambda: WORKERS, _ignore
        )

    def suggest(self, name: str) -> Job | None:
        params = self.searcher.suggest(name)
        return Job(params) if isinstance(params, dict) else None

    def report(self, name: str, step: int, accuracy: float, seconds: float) -> bool:
        if step not in self._levels:
            return False
        return self.searcher.record_epoch(name, self._result(step, accuracy, seconds))

    def end(self, name: str, step: int, accuracy: float) -> None:
        self.searcher.on_trial_complete(name, self._result(step, accuracy, 0.0))

    def diverge(self, name: str) -> None:
        failure = {"kind": "diverged", "reason": "the loss is not finite", "traceback": ""}
        self._run_files.trial(self.searcher.running[name]).write_json("failure.json", failure)
        self.searcher.on_trial_complete(name, error=True)

    def close(self) -> None:
        """Does nothing."""

    @staticmethod
    def _result(step: int, accuracy: float, seconds: float) -> dict[str, Any]:
        return {
            "epoch": step, "accuracy": accuracy, "final": step == STEPS, "seconds": seconds, "parameters": 1,
        }  # fmt: skip


def _ignore(row: dict[str, Any]) -> None:
    pass


def make_study(regime: Regime, search: dict[str, Any]) -> dict[str, Any]:
    """Returns a real study whose space is the regime's."""
    recipe: dict[str, Any] = {
        "data": {"name": "digits"}, "epochs": STEPS, "student": {"net": "resnet8"},
        "teacher": {"net": "resnet14", "train": {"epochs": 1}}, "method": {"name": "sdd"}, "optimizer": {},
    }  # fmt: skip
    for path, value in regime.paper_params.items():
        *parents, last = path.split("/")
        node = recipe
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return {
        "name": "bench", "recipe": recipe, "space": regime.space(), "search": search,
        "budget": {"trials": 100_000},
    }  # fmt: skip


def simulate(regime: Regime, make_search: Callable[[str], Search], budget: int) -> dict[str, Any]:
    """Returns {ends: [(cost in full trainings, reported end, end without noise)], begun, stopped, ...}."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        search = make_search(folder)
        try:
            return _simulate(regime, search, budget)
        finally:
            search.close()


def _simulate(regime: Regime, search: Search, budget: int) -> dict[str, Any]:
    queue: list[tuple[float, int, int, Job, Outcome]] = []
    spent = clock = proposing = 0.0
    ends: list[tuple[float, float, float]] = []
    begun = stopped = diverged = 0
    while spent < budget * regime.full_training:
        while len(queue) < WORKERS:
            before = time.perf_counter()
            job = search.suggest(str(begun))
            proposing += time.perf_counter() - before
            if job is None:
                break
            outcome = regime.train([job.params])[0]
            heapq.heappush(queue, (clock + outcome.seconds, begun, job.begin + 1, job, outcome))
            begun += 1
        if not queue:
            break
        clock, number, step, job, outcome = heapq.heappop(queue)
        spent += outcome.seconds
        if outcome.diverges_at is not None and step >= outcome.diverges_at:
            search.diverge(str(number))
            diverged += 1
            continue
        accuracy = float(outcome.accuracies[step - 1])
        stop = search.report(str(number), step, accuracy, outcome.seconds * step)
        if step == STEPS:
            ends.append((spent / regime.full_training, accuracy, outcome.end))
        if step == job.end or stop:
            search.end(str(number), step, accuracy)
            stopped += step < STEPS
        else:
            heapq.heappush(queue, (clock + outcome.seconds, number, step + 1, job, outcome))
    return {
        "begun": begun, "stopped": stopped, "diverged": diverged, "complete": len(ends), "ends": ends,
        "spent": spent / regime.full_training, "seconds_per_proposal": proposing / max(1, begun),
    }  # fmt: skip


def find_regret(regime: Regime, ends: list[tuple[float, float, float]], cost: float) -> float:
    """Points between the best and what would be selected at a cost: the paper's point where nothing ended."""
    done = [(accuracy, end) for spent, accuracy, end in ends if spent <= cost]
    selected = max(done)[1] if done else regime.train([regime.paper_params])[0].end
    return regime.best - selected
