"""The metrics (%) that may judge a trial, by their names in study files, in Optuna, in rows and in tables.

As scikit-learn defines them: accuracy (top-1), top5 (top_k_accuracy_score with k = 5), balanced_accuracy
(balanced_accuracy_score: the mean of the classes' recalls) and macro_f1 (f1_score, average="macro").

A row of a trial or an epoch that is judged by another one than accuracy says so: {"metric": "macro_f1",
"accuracy": ..., "macro_f1": ...}.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

Metric = Literal["accuracy", "top5", "balanced_accuracy", "macro_f1"]
METRICS: tuple[Metric, ...] = get_args(Metric)
METRIC_TITLES: dict[str, str] = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}


def get_metric(row: Mapping[str, Any]) -> str:
    """Returns by which metric a row is judged."""
    return str(row.get("metric", "accuracy"))


def get_score(row: Mapping[str, Any]) -> Any:
    """Returns a row's value (%) of the metric that it is judged by; None before there is one."""
    return row[get_metric(row)]


def select_scores(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the part of a row that says how good it is: its accuracy, its metric and the value of that."""
    metric = get_metric(row)
    scores = {"accuracy": row[f"{prefix}accuracy"]}
    return scores if metric == "accuracy" else scores | {"metric": metric, metric: row[f"{prefix}{metric}"]}


def describe_judged(metric: str) -> str:
    """Returns " (macro F1)" and the like for what is printed behind a number; "" for the accuracy."""
    return "" if metric == "accuracy" else f" ({METRIC_TITLES.get(metric, metric)})"
