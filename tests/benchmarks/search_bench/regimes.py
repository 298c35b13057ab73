"""The regimes: a net, the space that is searched, and the paper's point in it.

Narrow (n): the epochs are fixed, lr and weight decay within a factor of 10 of the paper's point. Wide (w):
all that was drawn; a third to half of it diverges. Graft (g): narrow, with a union of two arms; one shifts
the best learning rate and has two fields of its own, whose best values are worth 4 points.
"""

import math
import pickle
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from search_bench.surrogate import Outcome, Point, Surrogate

FILES = {"a": "alexnet_imagenet.parquet", "c": "convnext_tiny_imagenet.parquet"}
REGIMES = ("cn", "an", "aw", "cw", "cg")
RANGES = {
    "epochs": (20, 100, False), "batch_size": (128, 1024, True), "lr": (5e-3, 50, True),
    "lr_peak": (0.0, 0.8, False), "momentum": (0.7, 0.9995, False), "weight_decay": (1e-6, 1e-3, True),
    "label_smoothing": (0.0, 0.5, False),
}  # fmt: skip
# where each field stands in a real recipe (of the method sdd): only its type and its range count here
PATHS = {
    "epochs": "method/temperature", "batch_size": "method/weights/kd", "lr": "optimizer/lr",
    "lr_peak": "method/complementary", "momentum": "optimizer/momentum",
    "weight_decay": "optimizer/weight_decay", "label_smoothing": "method/weights/task",
}  # fmt: skip
ARM, ARM_FIELDS = "method/divergence/kind", ("method/divergence/non_target", "method/divergence/warm_up")
ARM_RANGES = ((0.5, 16, True), (0.0, 0.25, False))
LR_SHIFT, ARM_GAIN, ARM_DEPTH, ARM_BEST = 8.0, 1.0, 4.0, (0.7, 0.3)
UNSEARCHED = ("method/finest", "method/standardize")
PAPER_QUANTILES = {"good": 0.95, "middling": 0.6, "misleading": 0.15}


@dataclass(frozen=True)
class Regime:
    """A space, and trainings in it; `paper` names a quantile of the table, or of the space."""

    name: str
    surrogate: Surrogate
    paper: str = ""

    @cached_property
    def _base(self) -> Point:
        """Of the 21 sound points of the table around the 60th percentile, the one of the median lr."""
        ends, points = self.surrogate.ends, self.surrogate.sound_points
        middle = int(0.6 * (len(ends) - 1))
        near = [points[i] for i in np.argsort(ends)[middle - 10 : middle + 11]]
        return sorted(near, key=lambda point: point["lr"])[len(near) // 2]

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float, bool]]:
        """(low, high, logarithmic) of the searched fields."""
        ranges = dict(RANGES)
        if self.name[1] != "w":
            del ranges["epochs"]
            for name in ("lr", "weight_decay"):
                low, high, _ = RANGES[name]
                ranges[name] = (max(low, self._base[name] / 10), min(high, self._base[name] * 10), True)
        return ranges

    @property
    def _has_arms(self) -> bool:
        return self.name[1] == "g"

    @cached_property
    def paper_params(self) -> dict[str, Any]:
        """The paper's point, by the paths of the recipe."""
        point = self._base
        if self.paper:
            ends = np.array([o.end if o.diverges_at is None else -1.0 for o in self._sample_outcomes])
            sound = np.flatnonzero(ends >= 0)
            order = sound[np.argsort(ends[sound])]
            params = self._sample[int(order[int(PAPER_QUANTILES[self.paper] * (len(order) - 1))])]
            arm_fields = ARM_FIELDS if params.get(ARM) == "kd" else ()
            return {path: value for path, value in params.items() if path not in arm_fields}
        params = {PATHS[name]: point[name] for name in self.ranges}
        return params | ({ARM: "kd"} if self._has_arms else {})

    def space(self) -> dict[str, Any]:
        """The `space` of a study."""
        entries: dict[str, Any] = dict.fromkeys((*UNSEARCHED, *PATHS.values()), "fixed")
        for name, (low, high, log) in self.ranges.items():
            entries[PATHS[name]] = {"low": float(low), "high": float(high), "log": log}
        if not self._has_arms:
            entries |= dict.fromkeys((ARM, *ARM_FIELDS), "fixed")
        return entries

    def peer_space(self) -> list[dict[str, Any]]:
        """The space in plain data, as peers take it; conditions are unknown to most of them."""
        space = [
            {"name": PATHS[name], "low": float(low), "high": float(high), "log": log}
            for name, (low, high, log) in self.ranges.items()
        ]
        if self._has_arms:
            space.append({"name": ARM, "values": ["kd", "dkd"]})
            for name, (low, high, log) in zip(ARM_FIELDS, ARM_RANGES, strict=True):
                space.append({"name": name, "low": low, "high": high, "log": log})
        return space

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random point."""
        params: dict[str, Any] = {}
        for entry in self.peer_space():
            if "values" in entry:
                params[entry["name"]] = entry["values"][rng.integers(2)]
            else:
                params[entry["name"]] = _interpolate(entry["low"], entry["high"], entry["log"], rng.random())
        return params

    def train(self, all_params: list[dict[str, Any]]) -> list[Outcome]:
        """What trainings give."""
        points = []
        for params in all_params:
            point = self._base | {name: float(params[PATHS[name]]) for name in self.ranges}
            if self._has_arms and params[ARM] == "dkd":
                point["lr"] = min(RANGES["lr"][1], point["lr"] * LR_SHIFT)
            points.append(point)
        return [
            self._graft(params, outcome)
            for params, outcome in zip(all_params, self.surrogate.train(points), strict=True)
        ]

    def _graft(self, params: dict[str, Any], outcome: Outcome) -> Outcome:
        if not self._has_arms or params[ARM] == "kd":
            return outcome
        gain = ARM_GAIN
        for path, (low, high, log), best in zip(ARM_FIELDS, ARM_RANGES, ARM_BEST, strict=True):
            gain -= ARM_DEPTH * (_locate(low, high, log, params[path]) - best) ** 2
        factor = 1 + gain / 100
        return Outcome(
            outcome.accuracies * factor, outcome.end * factor, outcome.diverges_at, outcome.seconds
        )

    @cached_property
    def _sample(self) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        return [self.draw(rng) for _ in range(4000)]

    @cached_property
    def _sample_outcomes(self) -> list[Outcome]:
        return self.train(self._sample)

    @cached_property
    def best(self) -> float:
        """The best end without noise: of a random sample, improved by four rounds of steps from its best."""
        rng, points, outcomes = np.random.default_rng(1), self._sample, self._sample_outcomes
        for width in (0.2, 0.1, 0.05, 0.03):
            ends = [o.end if o.diverges_at is None else -1.0 for o in outcomes]
            leaders = [points[i] for i in np.argsort(ends)[-20:]]
            points = leaders + [self._step(p, width, rng) for p in leaders for _ in range(30)]
            outcomes = self.train(points)
        return max(o.end for o in outcomes if o.diverges_at is None)

    def _step(self, params: dict[str, Any], width: float, rng: np.random.Generator) -> dict[str, Any]:
        result = dict(params)
        for entry in self.peer_space():
            if "values" not in entry and rng.random() < 0.5:
                low, high, log = entry["low"], entry["high"], entry["log"]
                place = _locate(low, high, log, params[entry["name"]]) + width * rng.normal()
                result[entry["name"]] = _interpolate(low, high, log, float(np.clip(place, 0, 1)))
        return result

    @cached_property
    def full_training(self) -> float:
        """Seconds of a full training: the mean of the space."""
        return float(np.mean([o.seconds for o in self._sample_outcomes[:500]])) * 27

    def describe(self) -> str:
        """What it is, in a line."""
        ends = np.array([o.end for o in self._sample_outcomes if o.diverges_at is None])
        diverged = np.mean([o.diverges_at is not None for o in self._sample_outcomes])
        paper = self.train([self.paper_params])[0]
        return (
            f"{self.name}: {diverged:.0%} diverge; ends of the others {np.percentile(ends, 25):.1f} / "
            f"{np.percentile(ends, 50):.1f} / {np.percentile(ends, 90):.1f} %, the best {self.best:.2f}, "
            f"the paper's {paper.end:.2f}"
        )


def _locate(low: float, high: float, log: bool, value: float) -> float:
    if log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _interpolate(low: float, high: float, log: bool, place: float) -> float:
    if not log:
        return low + (high - low) * place
    return min(high, max(low, math.exp(math.log(low) + (math.log(high) - math.log(low)) * place)))


@lru_cache
def _load_surrogate(net: str, curves: Path, cache: Path) -> Surrogate:
    kept = cache / f"surrogate-{net}.pickle"
    if not kept.exists():
        kept.write_bytes(pickle.dumps(Surrogate(curves / FILES[net])))
    surrogate: Surrogate = pickle.loads(kept.read_bytes())
    return surrogate


@lru_cache
def load_regime(full_name: str, curves: Path, cache: Path) -> Regime:
    """Returns a regime (`cn`, or `cn-good` with another paper's point); fitted once, kept in a folder."""
    name, _, paper = full_name.partition("-")
    kept = cache / f"regime-{full_name}.pickle"
    if not kept.exists():
        regime = Regime(name, _load_surrogate(name[0], curves, cache), paper)
        print(regime.describe(), f"; a full training {regime.full_training / 3600:.2f} hours", flush=True)
        kept.write_bytes(pickle.dumps(regime))
    return pickle.loads(kept.read_bytes())
