"""How sure a mean over seeds is."""

from collections.abc import Sequence
from math import sqrt
from statistics import stdev


def half_width(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % t interval of the mean; None with fewer than two values."""
    from scipy import stats  # here: it takes a while

    n = len(values)
    return float(stats.t.ppf(0.975, n - 1)) * stdev(values) / sqrt(n) if n > 1 else None
