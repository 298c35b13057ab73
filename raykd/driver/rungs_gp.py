"""Optuna's sampler and pruner by a Gaussian process over the rungs (maths/rungs_gp.py).

What they know is in the Optuna study: trials, their values by epoch, who diverged. The model's parameters are
fitted anew when the trials grew by a share, and kept in an attribute of the Optuna study, from which the next
fit starts. So a proposal and a judgement follow from the study's seed and storage alone.
"""

from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from scipy.special import log_ndtr

from raykd.driver.distributions import to_distribution
from raykd.driver.rungs_history import RungsHistory, read_history
from raykd.maths.gaussian_process import (
    Array,
    GaussianProcess,
    fit_log_params,
    log_expected_improvement,
    prior_log_params,
)
from raykd.maths.rungs_gp import MIN_TRIALS, RungsGP
from raykd.maths.unit_space import UnitSpace
from raykd.spec import Dimension

STATE = "rungs_model"  # the Optuna study's attribute: what is fitted, the gains expected of late proposals
GROWTH = 1 / 10  # the share of new observations at which parameters are fitted anew, and at least MIN_GROWTH
MIN_GROWTH = 2
MIN_DIVERGED = 2  # trials, from which on divergence has a model of its own
MIN_CHANCE, HOPELESS = 0.2, 1e4  # of not diverging: a point below it is proposed where there is no other
CANDIDATES, LEADERS, STEPS = 300, 5, 25  # random points; the best points, and how many around each
STEP_SIZES, CHOICE_STEPS = (0.03, 0.1), 0.15  # of such points: deviations; how often a field is drawn anew
PAPER_SIZE = 0.2  # the deviation of points near the paper's
KEPT_GAINS = 3


class Model(NamedTuple):
    """What the trials say of ends and of divergence."""

    rungs: RungsGP
    sound: GaussianProcess | None


class RungsGPSampler(BaseSampler):
    """Proposes the point of the highest expected improvement of the end that is likely not to diverge.

    Args:
        space: What is searched.
        rungs: The epochs at which trials are compared; the last is the end.
        startup_trials: Points are random until so many trials reached the first rung.
        paper_share: Of the first points, the share near the paper's point; it shrinks with the trials, and is
            nothing when the paper's trial is in the worse half.
        seed: Of this proposal.
    """

    def __init__(
        self,
        space: dict[str, Dimension],
        rungs: list[int],
        startup_trials: int,
        paper_share: float,
        seed: int,
    ) -> None:
        self._space, self._unit_space, self._rungs = space, UnitSpace(space), rungs
        self._startup_trials, self._paper_share = startup_trials, paper_share
        self._rng = np.random.default_rng(seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns all fields: those that turn out not to be active are not asked for."""
        return {path: to_distribution(dimension) for path, dimension in self._space.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the proposal."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        history = read_history(trials, self._unit_space, self._rungs)
        center = self._choose_center(history)
        if len(history.units) < self._startup_trials:
            unit = self._draw(1, center)[0]
        else:
            unit = self._propose(study, history, center)
        return self._unit_space.to_params(unit)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Returns a random value: of a field that an enqueued point leaves open."""
        unit_space = UnitSpace({param_name: self._space[param_name]})
        return unit_space.to_params(self._rng.random(1))[param_name]

    def _choose_center(self, history: RungsHistory) -> Array | None:
        """The paper's point where this proposal is to be near it."""
        draw = self._rng.random()
        if history.paper is None:
            return None
        unit, number = history.paper
        share = self._paper_share * self._startup_trials / (self._startup_trials + len(history.units))
        return unit if draw < share and not _is_in_worse_half(history, number) else None

    def _draw(self, count: int, center: Array | None) -> Array:
        if center is None:
            return self._rng.random((count, self._unit_space.num_fields))
        return self._step(np.repeat(center[None], count, axis=0), PAPER_SIZE)

    def _step(self, units: Array, size: float) -> Array:
        """Points near others; now and then a field is drawn anew, so that choices change, too."""
        near = units + size * self._rng.normal(size=units.shape)
        near = np.where((near < 0) | (near > 1), units + (near - units) * self._rng.random(units.shape), near)
        anew = self._rng.random(units.shape) < CHOICE_STEPS
        return np.clip(np.where(anew, self._rng.random(units.shape), near), 0, 1)

    def _propose(self, study: optuna.Study, history: RungsHistory, center: Array | None) -> Array:
        model = _fit(study, self._unit_space, history)
        candidates = self._draw(CANDIDATES, center)
        if center is None:
            ends = model.rungs.predict_own_ends().mean
            leaders = history.units[np.argsort(-ends, kind="stable")[:LEADERS]]
            near = [self._step(np.repeat(leaders, STEPS, axis=0), size) for size in STEP_SIZES]
            candidates = np.concatenate([candidates, *near])
        inputs = self._unit_space.to_inputs(candidates)
        unknown = np.concatenate([history.pending, history.diverged])
        rungs = model.rungs.believe(self._unit_space.to_inputs(unknown))
        gains = log_expected_improvement(rungs.predict_ends(inputs), model.rungs.predict_best())
        if model.sound is not None:
            log_chances = _log_chance(model.sound, inputs)
            gains = np.where(log_chances > np.log(MIN_CHANCE), gains, gains - HOPELESS) + log_chances
        if center is None and model.rungs.num_rungs == len(self._rungs):
            _keep_gain(study, float(np.exp(gains.max())))
        best: Array = candidates[int(gains.argmax())]
        return best


class RungsGPPruner(BasePruner):
    """Halving by predicted ends: at a rung a trial goes on when its end may be among the best 1/eta.

    A prediction counts `kappa` standard deviations above its mean, and is made from all that is
    known. Until the model knows enough ends, trials are compared by their values at the rung.
    The paper's trial is never stopped: it is what a study is compared with, and one of the first ends.

    Args:
        space: What is searched.
        rungs: As of the sampler.
        eta: The best 1/eta of the trials that reached a rung go on.
        kappa: As above.
    """

    def __init__(self, space: dict[str, Dimension], rungs: list[int], eta: int, kappa: float) -> None:
        self._unit_space, self._rungs, self._eta, self._kappa = UnitSpace(space), rungs, eta, kappa

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Returns whether a trial is stopped at its last epoch."""
        epoch = trial.last_step
        if epoch not in self._rungs[:-1] or trial.user_attrs.get("role") == "paper":
            return False
        history = read_history(study.get_trials(deepcopy=False), self._unit_space, self._rungs)
        if trial.number not in history.numbers:
            return False
        scores = history.values[:, self._rungs.index(epoch)]
        reached = np.isfinite(scores)
        if np.isfinite(history.values[:, -1]).sum() >= MIN_TRIALS and STATE in study.user_attrs:
            model = _load(study, self._unit_space, history)
            mean, variance = model.rungs.predict_own_ends()
            scores = mean + self._kappa * np.sqrt(variance)
        own = history.numbers.index(trial.number)
        ahead = int((scores[reached] > scores[own]).sum())
        return ahead >= max(1, int(reached.sum()) // self._eta)


def read_expected_gains(study: optuna.Study) -> list[float]:
    """Returns what the model expected of the last KEPT_GAINS proposals, in points of accuracy."""
    gains: list[float] = study.user_attrs.get(STATE, {}).get("gains", [])
    return gains


def _is_in_worse_half(history: RungsHistory, number: int) -> bool:
    """Of the trials that came as far; a trial that diverged before a rung is in it."""
    if number not in history.numbers:
        return False
    own = history.values[history.numbers.index(number)]
    rung = int(np.isfinite(own).sum()) - 1
    others = history.values[:, rung]
    return bool(own[rung] < np.nanmedian(others))


def _fit(study: optuna.Study, unit_space: UnitSpace, history: RungsHistory) -> Model:
    """The model with parameters fitted anew if there is enough new; then they are kept."""
    state: dict[str, Any] = study.user_attrs.get(STATE, {"count": 0, "rungs": [], "sound": None, "gains": []})
    count = int(np.isfinite(history.values).sum()) + len(history.diverged)
    if count < state["count"] + max(MIN_GROWTH, GROWTH * state["count"]):
        return _load(study, unit_space, history)
    inputs = unit_space.to_inputs(history.units)
    rungs = RungsGP(inputs, history.values, state["rungs"], fit=True).params.round(6).tolist()
    x, y = _list_soundness(unit_space, history)
    start = None if state["sound"] is None else np.array(state["sound"])
    sound = fit_log_params(x, y, start).round(6).tolist() if len(history.diverged) >= MIN_DIVERGED else None
    study.set_user_attr(STATE, state | {"count": count, "rungs": rungs, "sound": sound})
    return _load(study, unit_space, history)


def _load(study: optuna.Study, unit_space: UnitSpace, history: RungsHistory) -> Model:
    """The model with the parameters that are kept."""
    state = study.user_attrs[STATE]
    inputs = unit_space.to_inputs(history.units)
    rungs = RungsGP(inputs, history.values, state["rungs"])
    sound = None
    if len(history.diverged) >= MIN_DIVERGED:
        x, y = _list_soundness(unit_space, history)
        params = prior_log_params(x.shape[1]) if state["sound"] is None else np.array(state["sound"])
        sound = GaussianProcess(x, y, params)
    return Model(rungs, sound)


def _list_soundness(unit_space: UnitSpace, history: RungsHistory) -> tuple[Array, Array]:
    """Inputs, and 1 for trials that reached a rung, -1 for those that diverged."""
    units = np.concatenate([history.units, history.diverged])
    return unit_space.to_inputs(units), np.repeat([1.0, -1.0], [len(history.units), len(history.diverged)])


def _log_chance(sound: GaussianProcess, inputs: Array) -> Array:
    """The logarithm of the probability that points do not diverge."""
    mean, variance = sound.predict(inputs)
    chance: Array = log_ndtr(mean / np.sqrt(variance + sound.noise))
    return chance


def _keep_gain(study: optuna.Study, gain: float) -> None:
    state = study.user_attrs[STATE]
    study.set_user_attr(STATE, state | {"gains": [*state["gains"], gain][-KEPT_GAINS:]})
