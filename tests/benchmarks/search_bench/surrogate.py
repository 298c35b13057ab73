"""What a training would have given at any point: a surrogate of 512 real trainings on ImageNet.

The curves are resampled to STEPS equal parts of their own epochs, so that a step is a fraction of a trial.
Half of the prediction is that of randomized trees, half that of a Gaussian process on the curves' principal
components, both of trainings that learned. Whether one breaks or never leaves chance, the step of a break and
the seconds are the trees'. What a trial reports is the prediction and the residual curve of one of
the NEIGHBOURS real trainings that are predicted to end most nearly as well, chosen by a hash of the point: a
point always gives the same curve. (Residuals of any training would be three times too large near the best.)
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold

STEPS = 27
COMPONENTS, NEIGHBOURS = 5, 20
CHANCE, LEARNED = 0.1, 1.0  # % of top-1: of a guess, and the least of a training that learned something
FIELDS = ("epochs", "batch_size", "lr", "lr_peak", "momentum", "weight_decay", "label_smoothing")
Point = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """A training: what it reports (%), the same without noise, its step of divergence, seconds of a step."""

    accuracies: np.ndarray
    end: float
    diverges_at: int | None
    seconds: float


def read_table(path: Path) -> tuple[list[Point], list[dict[str, Any]]]:
    """Returns the points and the rows of a file of curves."""
    rows = pq.read_table(path).to_pylist()
    points = [
        {f: float(row[f]) for f in FIELDS if f != "lr_peak"}
        | {"lr_peak": row["lr_peak_epoch"] / row["epochs"]}
        for row in rows
    ]
    return points, rows


def _featurize(points: list[Point]) -> np.ndarray:
    p = {f: np.array([point[f] for point in points]) for f in FIELDS}
    heat = np.log(p["lr"] / (1 - p["momentum"]))
    columns = [
        p["epochs"] / 30, np.log(p["batch_size"]), np.log(p["lr"]) / 2, p["lr_peak"] * 4, p["momentum"] * 10,
        np.log(p["weight_decay"]) / 2, p["label_smoothing"] * 6, heat / 2,
        (heat - np.log(p["batch_size"])) / 2,
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def _ask_trees(forest: ExtraTreesRegressor | ExtraTreesClassifier, x: np.ndarray) -> np.ndarray:
    """Its predictions, or the chance of the last class: as `predict`, which takes long for one."""
    single = x.astype(np.float32)
    answers: np.ndarray = np.mean([tree.tree_.predict(single) for tree in forest.estimators_], axis=0)
    return answers[..., -1]


class _CurveModel:
    def __init__(self, x: np.ndarray, curves: np.ndarray) -> None:
        self._pca = PCA(COMPONENTS).fit(curves)
        components = self._pca.transform(curves)
        self._scale = components.std(axis=0)
        self._trees = ExtraTreesRegressor(80, min_samples_leaf=2, random_state=0).fit(x, components)
        kernel = ConstantKernel(1.0) * Matern(np.ones(x.shape[1]), (0.1, 100), nu=2.5) + WhiteKernel(0.1)
        self._gp = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        self._gp.fit(x, components / self._scale)

    def predict(self, x: np.ndarray) -> np.ndarray:
        components = 0.5 * (_ask_trees(self._trees, x) + self._gp.predict(x) * self._scale)
        return self._pca.inverse_transform(components)


class Surrogate:
    """Of one file of curves."""

    def __init__(self, path: Path) -> None:
        self.points, rows = read_table(path)
        x = _featurize(self.points)
        fractions = np.arange(1, STEPS + 1) / STEPS
        broken = np.array([row["nan_train_loss"] for row in rows])
        stuck = np.array([not row["nan_train_loss"] and row["top_1"][-1] < LEARNED for row in rows])
        sound = np.flatnonzero(~broken & ~stuck)
        self.sound_points = [self.points[place] for place in sound]
        self._x = x[sound]
        self._curves = np.array([
            np.interp(fractions * row["epochs"], np.arange(row["epochs"] + 1), [CHANCE, *row["top_1"]])
            for row in (rows[place] for place in sound)
        ])  # fmt: skip
        self.ends = self._curves[:, -1]
        self._model = _CurveModel(self._x, self._curves)
        predicted = self._model.predict(self._x)
        order = np.argsort(predicted[:, -1])
        self._predicted_ends, self._residuals = predicted[order, -1], (self._curves - predicted)[order]
        self._breaks = ExtraTreesClassifier(80, min_samples_leaf=2, random_state=0).fit(x, broken)
        self._sticks = ExtraTreesClassifier(80, min_samples_leaf=2, random_state=0).fit(
            x[~broken], stuck[~broken]
        )
        lasted = [len(row["top_1"]) / row["epochs"] for row in rows if row["nan_train_loss"]]
        self._lasts = ExtraTreesRegressor(40, min_samples_leaf=3, random_state=0).fit(x[broken], lasted)
        timed = np.array([bool(row["seconds"]) for row in rows])
        paces = [np.log(row["seconds"][-1] / len(row["seconds"])) for row in rows if row["seconds"]]
        self._paces = ExtraTreesRegressor(40, min_samples_leaf=5, random_state=0).fit(x[timed], paces)

    def cross_validate(self) -> dict[str, float]:
        """Returns Spearman's rho of 5-fold predictions at steps 1, 3, 9 and the last, and of the breaks."""
        predictions = np.empty_like(self._curves)
        for train, test in KFold(5, shuffle=True, random_state=0).split(self._x):
            predictions[test] = _CurveModel(self._x[train], self._curves[train]).predict(self._x[test])
        rhos = {
            f"step {step}": float(spearmanr(predictions[:, step - 1], self._curves[:, step - 1]).statistic)
            for step in (1, 3, 9, STEPS)
        }
        errors = np.median(np.abs(predictions[:, -1] - self.ends))
        noise = np.median(np.abs(self._residuals[:, -1]))
        return rhos | {"error at the end": float(errors), "noise": float(noise)}

    def train(self, points: list[Point]) -> list[Outcome]:
        """Returns what trainings at points give."""
        x = _featurize(points)
        curves, seconds = self._model.predict(x), np.exp(_ask_trees(self._paces, x))
        breaks, lasts = _ask_trees(self._breaks, x), _ask_trees(self._lasts, x)
        sticks = _ask_trees(self._sticks, x) if len(self._sticks.classes_) > 1 else np.zeros(len(x))
        outcomes = []
        for place, point in enumerate(points):
            digest = hashlib.sha256(repr([f"{point[f]:.6g}" for f in FIELDS]).encode()).digest()
            first = int(np.searchsorted(self._predicted_ends, curves[place, -1])) - NEIGHBOURS // 2
            first = min(max(first, 0), len(self._residuals) - NEIGHBOURS)
            noise = self._residuals[first + int.from_bytes(digest[:4], "big") % NEIGHBOURS]
            does_break = int.from_bytes(digest[4:8], "big") / 2**32 < breaks[place]
            curve = np.full(STEPS, CHANCE) if sticks[place] > 0.5 else np.clip(curves[place], CHANCE, 99)
            reported = curve if sticks[place] > 0.5 else np.clip(curve + noise, CHANCE, 99)
            outcomes.append(
                Outcome(
                    accuracies=reported,
                    end=float(curve[-1]),
                    diverges_at=min(STEPS - 1, 1 + int(lasts[place] * STEPS)) if does_break else None,
                    seconds=float(seconds[place] * point["epochs"] / STEPS),
                )
            )
        return outcomes
