"""How well the model of rungs_gp ranks points that it has not seen, from trials that halving stopped.

python tests/benchmarks/rungs_model.py --out FOLDER [--curves FOLDER] [--seeds 20] [--regimes cn,an,aw,cw]

Random points of a regime (search_bench/regimes.py) that do not diverge, judged in turn at steps 5 and 15 of
27 by halving (eta 3); Spearman's rho between the predicted and the true ends of 1,000 others, mean and 95 %.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from search import CURVES, GP
from search_bench.regimes import Regime, load_regime
from search_bench.simulation import make_study

from raykd.maths.gaussian_process import Array
from raykd.maths.interval import half_width
from raykd.maths.rungs_gp import RungsGP
from raykd.maths.unit_space import UnitSpace
from raykd.study.study import Study

STEPS, ETA = (5, 15, 27), 3


def halve(values: Array) -> Array:
    """Returns values [n, k], nan after the rung at which asynchronous halving stops a trial."""
    values = values.copy()
    for rung in range(values.shape[1] - 1):
        for place, value in enumerate(values[:, rung]):
            seen = values[: place + 1, rung]
            if not (seen > value).sum() < max(1, np.isfinite(seen).sum() // ETA):
                values[place, rung + 1 :] = np.nan
    return values


def compare(regime: Regime, trials: int, seeds: int) -> list[float]:
    """Returns rho by seed."""
    study = Study.parse(make_study(regime, {"sampler": GP, "pruner": GP}), "bench")
    space = UnitSpace(study.search_space())
    rng = np.random.default_rng(0)
    params = [regime.draw(rng) for _ in range(4000)]
    pairs = list(zip(params, regime.train(params), strict=True))
    sound = [(point, outcome) for point, outcome in pairs if outcome.diverges_at is None]
    x = space.to_inputs(space.to_units([point for point, _ in sound]))
    values = np.array([[outcome.accuracies[step - 1] for step in STEPS] for _, outcome in sound])
    ends, rhos = np.array([outcome.end for _, outcome in sound]), []
    for seed in range(seeds):
        order = np.random.default_rng(100 + seed).permutation(len(x))
        seen, new = order[:trials], order[trials : trials + 1000]
        model = RungsGP(x[seen], halve(values[seen]), fit=True)
        rhos.append(float(spearmanr(model.predict_ends(x[new]).mean, ends[new]).statistic))
    return rhos


def main() -> None:
    """Reads the command line, prints a line a regime."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--regimes", type=lambda text: text.split(","), default=["cn", "an", "aw", "cw"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.regimes:
        regime = load_regime(name, arguments.curves, arguments.out)
        for trials in (20, 40, 60):
            rhos = compare(regime, trials, arguments.seeds)
            print(f"{name}, {trials} trials: {np.mean(rhos):.2f} ± {half_width(rhos):.2f}", flush=True)


if __name__ == "__main__":
    main()
