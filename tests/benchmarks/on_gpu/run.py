"""The day there is a GPU: whether it computes rightly, then how fast; a section of studies/RECORDS.md.

    make test-gpu     # python tests/benchmarks/on_gpu/run.py --parts checks
    make bench-gpu    # python tests/benchmarks/on_gpu/run.py

It needs no network; noise stands in for CIFAR-100 where RAYKD_DATA has none. Of raykd's packages it needs
numpy, pillow, psutil, pyarrow, pydantic, ruamel.yaml, safetensors, scikit-learn, torch and torchvision, and
raykd itself need not be installed. What it has found it keeps (--kept FILE): where the time is short it is
stopped at any moment, and begun again it goes on. Exit code 2: there is no GPU, 1: something is computed
wrongly, and nothing was measured. On the CPU, its logic in a minute:

    ... run.py --device cpu --pairs resnet8:resnet8 --ways eager,table --counts 1 --rounds 1 --steps 2 \
        --seconds 1 --methods kd,crd --records /tmp/records.md --kept /tmp/kept.json
"""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parents[n]) for n in (3, 2, 1)]

import on_gpu.checks as checks  # noqa: E402
import on_gpu.speed as speed  # noqa: E402
import trial  # noqa: E402

from raykd import methods  # noqa: E402
from raykd.store.processors import count_cpus, name_device  # noqa: E402
from raykd.store.provenance import COMMIT  # noqa: E402
from raykd.training.graphs import start_graphs  # noqa: E402

ROOT = Path(__file__).parents[3]
PARTS = ("checks", "pairs", "together")


class Kept:
    """What was found, in a file: by this code on this machine it is not sought again."""

    def __init__(self, path: Path, place: str) -> None:
        self._path, self._place = path, place

    def get(self, what: str, find: Callable[[], Any]) -> Any:
        """Returns what `find` returns (plain data), or returned in an earlier run; what it raises."""
        results = json.loads(self._path.read_text()) if self._path.exists() else {}
        key = f"{self._place}: {what}"
        if key not in results:
            results[key] = find()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial_file = self._path.with_suffix(".partial")  # it may be killed at any moment
            partial_file.write_text(json.dumps(results, indent=1))
            partial_file.replace(self._path)
        return results[key]


def find_driver() -> str:
    """The version of NVIDIA's driver."""
    place = Path("/proc/driver/nvidia/version")
    match = re.search(r"Module\s+(?:for \S+\s+)?([\d.]+)", place.read_text()) if place.exists() else None
    return match[1] if match else "unknown"


def run_checks(device: torch.device, all_checks: Mapping[str, checks.Check], kept: Kept) -> bool:
    """Whether all passed; a line each."""
    is_right = True
    for name, check in all_checks.items():
        try:
            print(f"ok: {kept.get(name, partial(check, device))}", flush=True)
        except Exception as error:
            is_right = False
            print(f"WRONG: {name}: {type(error).__name__}: {error}", flush=True)
    return is_right


def write_section(path: Path, title: str, lines: Sequence[str]) -> None:
    """Writes a section of a Markdown file, in the place of one with this title or at the end."""
    text = path.read_text() if path.exists() else "# Records: what was measured\n"
    section = "\n".join([title, "", *lines, ""])
    parts = re.split(r"(?m)^(?=## )", text)
    kept = [part for part in parts if part.partition("\n")[0] != title]
    path.write_text("".join(kept).rstrip("\n") + "\n\n" + section)


def measure_pairs(device: torch.device, options: argparse.Namespace, kept: Kept) -> list[str]:
    """Lines of the section: one trial in several ways."""
    ways, settings = options.ways.split(","), (device, options.rounds, options.steps)
    rates = {
        " -> ".join(pair): kept.get(
            f"{' -> '.join(pair)}, {ways}, n = {options.rounds} x {options.steps}",
            partial(speed.measure_pair, pair, ways, *settings),
        )
        for pair in list_pairs(options)
    }
    return [
        f"KD, batch {trial.BATCH}: images/s, seconds of a trial of {speed.EPOCHS} x {speed.STEPS} steps, and",
        "times the plain loop (float32, live teacher, two loaders); the loops take turns, the median of",
        f"n = {options.rounds} rounds of {options.steps} steps counts.",
        "",
        *speed.format_pairs(ways, rates),
    ]


def measure_together(device: torch.device, options: argparse.Namespace, kept: Kept) -> list[str]:
    """Lines of the section: several trials at once."""
    pair = list_pairs(options)[0]
    rates = {
        count: kept.get(
            f"{count} x {' -> '.join(pair)}, {options.seconds:g} s",
            partial(speed.measure_together, pair, count, device, options.seconds),
        )
        for count in map(int, options.counts.split(","))
    }
    return [
        f"Trials of {' -> '.join(pair)} at once: images/s of all together, and times one live trial;",
        f"{options.seconds:g} s each, n = 1.",
        "",
        *speed.format_together(rates),
    ]


def list_pairs(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Of a teacher and a student."""
    return [
        (teacher, student) for teacher, _, student in (p.partition(":") for p in options.pairs.split(","))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks and measures raykd on a GPU.")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", default=",".join(methods.names()))
    parser.add_argument("--pairs", default=",".join(":".join(pair) for pair in trial.PAIRS))
    parser.add_argument("--ways", default=",".join(speed.WAYS))
    parser.add_argument("--counts", default="1,2,4,8", help="of trials at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="of a round")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--records", type=Path, default=ROOT / "studies/RECORDS.md")
    parser.add_argument("--kept", type=Path, default=ROOT / "runs/on_gpu.json", help="what was found so far")
    parser.add_argument("--commit", default=COMMIT or "unknown", help="where this is no checkout")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        build = f"torch {torch.__version__}, driver {find_driver()}"
        print(f"{build}: no CUDA GPU can be used here, nothing was run", file=sys.stderr)
        return 2
    card = f"{name_device(device)}, driver {find_driver()}, {count_cpus()} CPU cores ({platform.machine()})"
    place = f"commit {options.commit}, {card}, torch {torch.__version__}"
    kept, parts = Kept(options.kept, place), options.parts.split(",")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RAYKD_CACHE"] = cache
        start_graphs(device)  # a stream of its own, which all of it runs on
        names = options.methods.split(",")
        if "checks" in parts and not run_checks(device, checks.list_checks(names), kept):
            return 1
        lines = [f"{time.strftime('%F')}, {place}.", "", f"    {' '.join(['python', *sys.argv])}"]
        for part, measure in (("pairs", measure_pairs), ("together", measure_together)):
            lines += ["", *measure(device, options, kept)] if part in parts else []
        if {"pairs", "together"} & set(parts):
            write_section(options.records, f"## On {name_device(device)}: correctness and speed", lines)
            print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
