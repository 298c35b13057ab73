"""Which search finds the best point at the least cost, on real learning curves that others published.

python tests/benchmarks/search.py --out FOLDER [--curves FOLDER] [--envs FOLDER] [--first-seed 0]
    [--seeds 20] [--searches "A;B"] [--regimes cn,an,cn-good] [--budget 50]

Surrogates of the curves (search_bench/surrogate.py) answer the trainings; the searches are the real ones:
raykd's StudySearch with its journal, and peers in environments of their own (search_bench/make_envs.sh).
Results are kept in FOLDER/results.jsonl, one line a search, regime and seed; what is there is not run again.
Tables of all results follow.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search_bench.peers import PEERS, PeerSearch
from search_bench.regimes import REGIMES, Regime, load_regime
from search_bench.simulation import OurSearch, Search, simulate
from search_bench.table import print_tables, read_results

from raykd.store.provenance import record_provenance

CURVES = Path(__file__).parents[3] / "shared" / "data" / "curves"
HALVING: dict[str, Any] = {"kind": "halving", "min_fraction": 0.2, "eta": 3}
GP: dict[str, Any] = {"kind": "rungs_gp"}
OURS: dict[str, dict[str, Any]] = {
    "TPE + halving": {"sampler": {"kind": "tpe"}, "pruner": HALVING},
    "rungs_gp": {"sampler": GP, "pruner": GP},
    "rungs_gp, no prior": {"sampler": GP | {"paper_share": 0.0}, "pruner": GP},
    "rungs_gp, tolerance 0.3": {"sampler": GP, "pruner": GP, "tolerance": 0.3},
    "rungs_gp from 1/9": {"sampler": GP, "pruner": GP | {"min_fraction": 1 / 9}},
    "rungs_gp from 1/27": {"sampler": GP, "pruner": GP | {"min_fraction": 1 / 27}},
    "rungs_gp + halving": {"sampler": GP, "pruner": HALVING},
    "rungs_gp, no pruning": {"sampler": GP, "pruner": {"kind": "none"}},
    "TPE + halving from 1/27": {"sampler": {"kind": "tpe"}, "pruner": HALVING | {"min_fraction": 1 / 27}},
    "TPE + halving from 1/9": {"sampler": {"kind": "tpe"}, "pruner": HALVING | {"min_fraction": 1 / 9}},
    "TPE + halving from 1/3": {"sampler": {"kind": "tpe"}, "pruner": HALVING | {"min_fraction": 1 / 3}},
    "TPE + halving, eta 2": {"sampler": {"kind": "tpe"}, "pruner": HALVING | {"eta": 2}},
    "TPE, no pruning": {"sampler": {"kind": "tpe"}, "pruner": {"kind": "none"}},
    "random + halving": {"sampler": {"kind": "random"}, "pruner": HALVING},
    "random, no pruning": {"sampler": {"kind": "random"}, "pruner": {"kind": "none"}},
}


def find_search(name: str, regime: Regime, seed: int, envs: Path | None) -> Callable[[str], Search] | None:
    """Returns what makes a search in a folder; None for a peer that is not installed."""
    if name in OURS:
        return lambda folder: OurSearch(regime, OURS[name] | {"seed": seed}, folder)
    if envs is not None and PeerSearch.is_installed(name, envs):
        return lambda folder: PeerSearch(name, regime, seed, envs)
    return None


def run(arguments: argparse.Namespace) -> None:
    """Runs what is missing, then prints the tables."""
    path = arguments.out / "results.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    done = {(row["search"], row["regime"], row["seed"]) for row in read_results(path)}
    commit = record_provenance()["commit"]
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for search in arguments.searches:
            for name in arguments.regimes:
                if (search, name, seed) in done:
                    continue
                regime = load_regime(name, arguments.curves, arguments.out)
                make_search = find_search(search, regime, seed, arguments.envs)
                if make_search is None:
                    continue
                result = simulate(regime, make_search, arguments.budget)
                row = {"search": search, "regime": name, "seed": seed, "commit": commit, **result}
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                del row["ends"]
                print(row, flush=True)
    for search in arguments.searches:
        if search in PEERS and not PeerSearch.is_installed(search, arguments.envs):
            print(f"{search}: not installed in {arguments.envs}; left out")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--envs", type=Path)
    parser.add_argument("--budget", type=int, default=50, help="full trainings")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--searches", type=lambda text: text.split(";"), default=[*OURS, *PEERS])
    parser.add_argument("--regimes", type=lambda text: text.split(","), default=list(REGIMES))
    arguments = parser.parse_args()
    if not arguments.curves.is_dir():
        print(f"{arguments.curves}: not here (512 real curves each of two nets); nothing is run")
        return
    warnings.filterwarnings("ignore")
    run(arguments)
    regimes = {}
    for name in arguments.regimes:
        regimes[name] = load_regime(name, arguments.curves, arguments.out)
        print(regimes[name].describe())
    print_tables(read_results(arguments.out / "results.jsonl"), regimes, arguments.searches, arguments.budget)


if __name__ == "__main__":
    main()
