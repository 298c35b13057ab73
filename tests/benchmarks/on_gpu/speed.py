"""How fast a device trains: one trial in several ways, and several trials at once."""

import os
import tempfile
from collections.abc import Iterator, Sequence
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
from raykd.training.graphs import GRAPH, WARM_UP

EPOCHS, STEPS = 240, 703  # of a trial on CIFAR-100 less 10 %
CACHE_GIB = 8.0


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
) -> dict[str, float | str]:
    """Images/s of the plain loop and of each way, or why there is none; they take turns."""
    teacher, student = pair
    loops: dict[str, Any] = {"plain loop": Baseline(models.make(teacher, CLASSES), student, device=device)}
    results: dict[str, float | str] = {}
    for name in ways:
        try:
            loops[name] = make_loop(pair, WAYS[name], device, steps)
        except Exception as error:  # compilers are not everywhere
            results[name] = first_line(error, 60)
    return {name: rate for name, (rate, _) in measure(loops, rounds, steps).items()} | results


def make_loop(pair: tuple[str, str], way: Way, device: torch.device, steps: int) -> Raykd:
    """Warm: RuntimeError where the way's steps are not all replayed from graphs that should be."""
    graphs = make_graphs(device) if way.graphed else None
    loop = Raykd(*pair, steps, way.cache_gib, device, graphs, way.compiled)
    for _ in range(-(-(WARM_UP + 1) // steps)):
        loop.run(steps)
    if graphs is not None and (levels := graphs.list_levels()) and set(levels.values()) != {GRAPH}:
        raise RuntimeError(str(levels))
    return loop


def format_pairs(pairs: Sequence[tuple[str, str]], ways: Sequence[str], *settings: Any) -> Iterator[str]:
    """The table's lines: images/s, seconds of a trial, and times the plain loop."""
    names = ("plain loop", *ways)
    yield f"| pair | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    for pair in pairs:
        rates = measure_pair(pair, ways, *settings)
        yield f"| {' -> '.join(pair)} | {' | '.join(_format(rates[n], rates['plain loop']) for n in names)} |"


def _format(rate: float | str, base: float | str) -> str:
    if isinstance(rate, str) or isinstance(base, str):
        return f"none: {rate}"
    return f"{rate:,.0f}, {EPOCHS * STEPS * BATCH / rate:,.0f} s ({rate / base:.2f}x)"


def format_together(
    pair: tuple[str, str], counts: Sequence[int], device: torch.device, seconds: float
) -> Iterator[str]:
    """The table's lines: images/s of so many trials at once, with and without MPS and the cache."""
    yield "| trials at once | live | table | live, MPS | table, MPS |"
    yield "|---|---|---|---|---|"
    base = 0.0
    for count in counts:
        cells = []
        for has_mps in (False, True):
            with serve(has_mps) as is_served:
                for cached in (False, True):
                    can = is_served == has_mps
                    rate = measure_apart(pair, count, seconds, cached, device) if can else 0.0
                    base = base or rate
                    cells.append(f"{rate:,.0f} ({rate / base:.2f})" if rate else f"no {mps.CONTROL}")
        yield f"| {count} | {' | '.join(cells)} |"


@contextmanager
def serve(wanted: bool) -> Iterator[bool]:
    """MPS for a `with` block, if it is wanted and there; whether it serves."""
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        daemon = mps.Daemon(Path(folder) / "pipes")
        is_served = wanted and daemon.start()
        before = os.environ.get(mps.PIPES)
        if is_served:
            os.environ[mps.PIPES] = str(Path(folder) / "pipes")
        try:
            yield is_served
        finally:
            os.environ.pop(mps.PIPES, None)
            os.environ.update({mps.PIPES: before} if before else {})
            daemon.stop()
