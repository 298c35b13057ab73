"""A peer's searcher, asked by lines of JSON on the standard input; runs in the peer's own environment.

No import of raykd's or of the bench's: it is a process of another environment (search_bench/make_envs.sh).
"""

import json
import random
import sys
from typing import Any

import numpy as np


class OptunaTPEHyperband:
    """TPESampler and HyperbandPruner, as Optuna's documentation pairs them."""

    def __init__(self, space: list[dict[str, Any]], paper: dict[str, Any], seed: int, steps: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._states = optuna.trial.TrialState
        self._space, self._trials, self._steps = space, {}, steps
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=steps, reduction_factor=3),
        )
        self._study.enqueue_trial(paper)

    def suggest(self, name: str) -> dict[str, Any]:
        trial = self._trials[name] = self._study.ask()
        for d in self._space:
            if "values" in d:
                trial.suggest_categorical(d["name"], d["values"])
            else:
                trial.suggest_float(d["name"], d["low"], d["high"], log=d["log"])
        return {"params": trial.params}

    def report(self, name: str, step: int, accuracy: float, seconds: float) -> bool:
        self._trials[name].report(accuracy, step)
        return bool(step < self._steps and self._trials[name].should_prune())

    def end(self, name: str, step: int, accuracy: float) -> None:
        if step == self._steps:
            self._study.tell(self._trials[name], accuracy)
        else:
            self._study.tell(self._trials[name], state=self._states.PRUNED)

    def diverge(self, name: str) -> None:
        self._study.tell(self._trials[name], state=self._states.FAIL)


class SyneTune:
    """One of Syne Tune's schedulers; a trial that diverges is one of accuracy 0 at its next rung."""

    def __init__(
        self, searcher: str, space: list[dict[str, Any]], paper: dict[str, Any], seed: int, steps: int
    ) -> None:
        from syne_tune.config_space import choice, loguniform, uniform
        from syne_tune.optimizer import baselines

        np.random.seed(seed)  # noqa: NPY002  what the peer draws from
        random.seed(seed)
        config_space = {}
        for d in space:
            if "values" in d:
                config_space[d["name"]] = choice(d["values"])
            else:
                config_space[d["name"]] = (loguniform if d["log"] else uniform)(d["low"], d["high"])
        point = {
            d["name"]: paper.get(d["name"], d["values"][0] if "values" in d else (d["low"] + d["high"]) / 2)
            for d in space
        }
        settings = {
            "config_space": config_space, "metric": "accuracy", "do_minimize": False, "random_seed": seed,
            "points_to_evaluate": [point],
        }  # fmt: skip
        self._is_asha = searcher != "cqr"
        if self._is_asha:
            kind = {"asha": baselines.ASHA, "bohb": baselines.BOHB, "ashacqr": baselines.ASHACQR}[searcher]
            self._scheduler = kind(
                **settings, time_attr="step", max_t=steps, grace_period=1, reduction_factor=3
            )
        else:
            self._scheduler = baselines.CQR(**settings)
        self._trials: dict[str, Any] = {}
        self._steps = steps

    def suggest(self, name: str) -> dict[str, Any]:
        from datetime import datetime

        from syne_tune.backend.trial_status import Trial

        config = self._scheduler.suggest().config
        trial = Trial(trial_id=int(name), config=config, creation_time=datetime.now())
        self._trials[name] = trial
        self._scheduler.on_trial_add(trial)
        return {
            "params": {
                key: value.item() if hasattr(value, "item") else value for key, value in config.items()
            }
        }

    def report(self, name: str, step: int, accuracy: float, seconds: float) -> bool:
        if step == self._steps:
            return False
        decision = self._scheduler.on_trial_result(self._trials[name], {"accuracy": accuracy, "step": step})
        return self._is_asha and decision == "STOP"

    def end(self, name: str, step: int, accuracy: float) -> None:
        if step == self._steps:
            self._scheduler.on_trial_complete(self._trials[name], {"accuracy": accuracy, "step": step})
        else:
            self._scheduler.on_trial_remove(self._trials[name])

    def diverge(self, name: str) -> None:
        self._scheduler.on_trial_complete(self._trials[name], {"accuracy": 0.0, "step": self._steps})


class NePS:
    """NePS's PriorBand, which promotes: a trial's next steps are a new one that goes on from it."""

    def __init__(self, space: list[dict[str, Any]], paper: dict[str, Any], seed: int, steps: int) -> None:
        import neps
        import torch
        from neps.optimizers.algorithms import priorband
        from neps.optimizers.ask_and_tell import AskAndTell

        np.random.seed(seed)  # noqa: NPY002  what the peer draws from
        random.seed(seed)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        fields: dict[str, Any] = {"step": neps.HPOInteger(1, steps, is_fidelity=True)}
        for d in space:
            prior = paper.get(d["name"])
            if "values" in d:
                fields[d["name"]] = neps.HPOCategorical(d["values"], prior=prior)
            else:
                prior = (d["low"] + d["high"]) / 2 if prior is None else prior
                fields[d["name"]] = neps.HPOFloat(d["low"], d["high"], log=d["log"], prior=prior)
        self._asked = AskAndTell(
            priorband(neps.SearchSpace(fields), base="async_hb", sample_prior_first=True)
        )
        self._trials: dict[str, Any] = {}
        self._values: dict[str, float] = {}

    def suggest(self, name: str) -> dict[str, Any]:
        trial = self._trials[name] = self._asked.ask()
        config = dict(trial.config)
        end = int(config.pop("step"))
        previous = trial.metadata.previous_trial_id
        begin = int(self._asked.trials[previous].config["step"]) if previous is not None else 0
        return {"params": config, "begin": begin if begin < end else 0, "end": end}

    def report(self, name: str, step: int, accuracy: float, seconds: float) -> bool:
        return False

    def end(self, name: str, step: int, accuracy: float) -> None:
        self._asked.tell(self._trials[name], -accuracy)

    def diverge(self, name: str) -> None:
        self._asked.tell(self._trials[name], 0.0)


def main() -> None:
    """Answers one line with one line, the first with nothing."""
    first = json.loads(sys.stdin.readline())
    word = first.pop("searcher")
    if word == "optuna":
        searcher: Any = OptunaTPEHyperband(**first)
    elif word == "priorband":
        searcher = NePS(**first)
    else:
        searcher = SyneTune(word, **first)
    print("null", flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "suggest" in message:
            answer = searcher.suggest(message["suggest"])
        elif "report" in message:
            answer = searcher.report(
                message["report"], message["step"], message["accuracy"], message["seconds"]
            )
        elif "end" in message:
            answer = searcher.end(message["end"], message["step"], message["accuracy"])
        else:
            answer = searcher.diverge(message["diverge"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
