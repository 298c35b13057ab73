"""Regrets by search and regime, with paired intervals against the first search."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from search_bench.regimes import Regime
from search_bench.simulation import find_regret

COSTS = (12, 25, 50)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a results file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_tables(
    results: list[dict[str, Any]], regimes: dict[str, Regime], searches: list[str], budget: int
) -> None:
    """Prints the mean regrets, and their ratio to and difference from the first search's, paired by seed."""
    costs = [cost for cost in COSTS if cost <= budget]
    regrets: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for row in results:
        if row["regime"] in regimes:
            values = np.array([find_regret(regimes[row["regime"]], row["ends"], cost) for cost in costs])
            regrets.setdefault((row["search"], row["regime"]), {})[row["seed"]] = values
    names = [name for name in searches if any((name, regime) in regrets for regime in regimes)]
    print("\nRegret in points after " + " / ".join(map(str, costs)) + " full trainings, mean\n")
    print("| search | " + " | ".join(regimes) + " |\n|---|" + "---|" * len(regimes))
    for name in names:
        cells = [_mean(regrets.get((name, regime), {})) for regime in regimes]
        print(f"| {name} | " + " | ".join(cells) + " |")
    base = names[0]
    print(f"\nDifference from {base}, paired by seed, ± 95 % (ratio of the means)\n")
    print("| search | " + " | ".join(regimes) + " |\n|---|" + "---|" * len(regimes))
    for name in names[1:]:
        cells = [_compare(regrets.get((name, r), {}), regrets.get((base, r), {})) for r in regimes]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _mean(by_seed: dict[int, np.ndarray]) -> str:
    if not by_seed:
        return "-"
    mean = np.mean(list(by_seed.values()), axis=0)
    return " / ".join(f"{value:.2f}" for value in mean) + f" (n {len(by_seed)})"


def _compare(ours: dict[int, np.ndarray], base: dict[int, np.ndarray]) -> str:
    seeds = sorted(ours.keys() & base.keys())
    if len(seeds) < 2:
        return "-"
    a, b = (np.array([side[seed] for seed in seeds]) for side in (ours, base))
    half = stats.t.ppf(0.975, len(seeds) - 1) * (a - b).std(axis=0, ddof=1) / len(seeds) ** 0.5
    parts = zip((a - b).mean(axis=0), half, a.mean(axis=0) / b.mean(axis=0), strict=True)
    return " / ".join(f"{difference:+.2f}±{width:.2f} ({ratio:.2f})" for difference, width, ratio in parts)
