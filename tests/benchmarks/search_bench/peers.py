"""Peers' searchers, each a process of its own environment that speaks lines of JSON (peer_process.py)."""

import json
import subprocess
from pathlib import Path
from typing import Any

from search_bench.regimes import Regime
from search_bench.simulation import Job
from search_bench.surrogate import STEPS

PEERS = {  # by name: the environment and the word for peer_process.py
    "Optuna TPE + Hyperband": ("optuna", "optuna"),
    "Syne Tune ASHA": ("syne", "asha"),
    "Syne Tune BOHB": ("syne", "bohb"),
    "Syne Tune ASHA + CQR": ("syne", "ashacqr"),
    "Syne Tune CQR": ("syne", "cqr"),
    "NePS PriorBand": ("neps", "priorband"),
}


class PeerSearch:
    """A peer's searcher on a regime."""

    def __init__(self, name: str, regime: Regime, seed: int, envs: Path) -> None:
        env, word = PEERS[name]
        script = Path(__file__).with_name("peer_process.py")
        self._process = subprocess.Popen(
            [envs / env / "bin" / "python", "-W", "ignore", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._ask(
            {
                "searcher": word,
                "space": regime.peer_space(),
                "paper": regime.paper_params,
                "seed": seed,
                "steps": STEPS,
            }
        )

    @staticmethod
    def is_installed(name: str, envs: Path | None) -> bool:
        """Whether the peer's environment is there."""
        return envs is not None and (envs / PEERS[name][0] / "bin" / "python").exists()

    def _ask(self, message: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def suggest(self, name: str) -> Job | None:
        answer = self._ask({"suggest": name})
        return Job(answer["params"], answer.get("begin", 0), answer.get("end", STEPS)) if answer else None

    def report(self, name: str, step: int, accuracy: float, seconds: float) -> bool:
        return bool(self._ask({"report": name, "step": step, "accuracy": accuracy, "seconds": seconds}))

    def end(self, name: str, step: int, accuracy: float) -> None:
        self._ask({"end": name, "step": step, "accuracy": accuracy})

    def diverge(self, name: str) -> None:
        self._ask({"diverge": name})

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
