"""How fast a device trains: one trial in several ways, and several trials at once."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from on_gpu.checks import make_graphs
from together import measure_apart
from trial import BATCH, CLASSES, Baseline, Raykd, measure

from raykd import models
from raykd.driver import mps
from raykd.errors import first_line
from raykd.training.graphs import GRAPH, WAITING, WARM_UP

EPOCHS, STEPS = 240, 703  # of a trial on CIFAR-100 less 10 %
CACHE_GIB = 8.0
Rate = float | str  # images/s, or why there is none


class Way(NamedTuple):
    """How a trial runs."""

    cache_gib: float = 0.0
    graphed: bool = False
    compiled: bool = False


WAYS = {
    "eager": Way(),
    "table": Way(CACHE_GIB),
    "graph": Way(graphed=True),
    "graph + table": Way(CACHE_GIB, graphed=True),
    "compile": Way(compiled=True),
    "compile + table": Way(CACHE_GIB, compiled=True),
}


def measure_pair(
    pair: tuple[str, str], ways: Sequence[str], device: torch.device, rounds: int, steps: int
) -> dict[str, Rate]:
    """Images/s of the plain loop and of each way, or why there is none; they take turns."""
    teacher, student = pair
    loops: dict[str, Any] = {"plain loop": Baseline(models.make(teacher, CLASSES), student, device=device)}
    results: dict[str, Rate] = {}
    for name in ways:
        try:
            loops[name] = make_loop(pair, WAYS[name], device, steps)
        except Exception as error:  # compilers are not everywhere
            results[name] = first_line(error, 60)
    return {name: rate for name, (rate, _) in measure(loops, rounds, steps).items()} | results


def make_loop(pair: tuple[str, str], way: Way, device: torch.device, steps: int) -> Raykd:
    """Warm: RuntimeError where the way's steps are not replayed from graphs that should be.

    A teacher whose outputs were in the table before is never called.
    """
    graphs = make_graphs(device) if way.graphed else None
    loop = Raykd(*pair, steps, way.cache_gib, device, graphs, way.compiled)
    for _ in range(-(-(WARM_UP + 1) // steps)):
        loop.run(steps)
    if graphs is not None and not set((levels := graphs.list_levels()).values()) <= {GRAPH, WAITING}:
        raise RuntimeError(str(levels))
    return loop


def format_pairs(ways: Sequence[str], rates: Mapping[str, Mapping[str, Rate]]) -> Iterator[str]:
    """The table's lines, of each pair's rates: images/s, seconds of a trial, and times the plain loop."""
    names = ("plain loop", *ways)
    yield f"| pair | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    for pair, row in rates.items():
        yield f"| {pair} | {' | '.join(_format(row[n], row['plain loop']) for n in names)} |"


def _format(rate: Rate, base: Rate) -> str:
    if isinstance(rate, str) or isinstance(base, str):
        return f"none: {rate}"
    return f"{rate:,.0f}, {EPOCHS * STEPS * BATCH / rate:,.0f} s ({rate / base:.2f}x)"


def measure_together(
    pair: tuple[str, str], count: int, device: torch.device, seconds: float
) -> dict[str, Rate]:
    """Images/s of so many trials at once, with and without MPS and the cache, or why there is none."""
    rates: dict[str, Rate] = {}
    for mps_name in ("", ", MPS"):
        with serve(bool(mps_name)) as is_served:
            for name in ("live", "table"):
                column, rates[column] = f"{name}{mps_name}", f"no {mps.CONTROL}"
                if is_served == bool(mps_name):
                    try:
                        rates[column] = measure_apart(pair, count, seconds, name == "table", device)
                    except Exception as error:  # MPS is not allowed everywhere
                        rates[column] = f"{type(error).__name__} {first_line(error, 60)}".strip()
    return rates


def format_together(rates: Mapping[int, Mapping[str, Rate]]) -> Iterator[str]:
    """The table's lines, by the number of trials: images/s of all together, and times one live trial."""
    base = next(iter(rates.values()))["live"]
    yield f"| trials at once | {' | '.join(next(iter(rates.values())))} |"
    yield "|---|---|---|---|---|"
    for count, row in rates.items():
        cells = (
            f"none: {rate}"
            if isinstance(rate, str) or isinstance(base, str)
            else f"{rate:,.0f} ({rate / base:.2f})"
            for rate in row.values()
        )
        yield f"| {count} | {' | '.join(cells)} |"


@contextmanager
def serve(wanted: bool) -> Iterator[bool]:
    """MPS for a `with` block, if it is wanted and there, else none; whether it serves."""
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        pipes = Path(folder) / "pipes"
        daemon = mps.Daemon(pipes)
        is_served = wanted and daemon.start()
        before = os.environ.get(mps.PIPES)
        if pipes.exists() or not is_served:  # else an administrator's daemon serves
            os.environ[mps.PIPES] = str(pipes)
        try:
            yield is_served
        finally:
            os.environ.pop(mps.PIPES, None)
            os.environ.update({mps.PIPES: before} if before else {})
            daemon.stop()
