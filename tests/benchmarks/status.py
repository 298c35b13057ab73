"""How long `status` takes over a run of many trials: on a disk, and on an object store.

    python tests/benchmarks/status.py [trials]

Real files; the object store is moto's server in a process of its own on loopback, so its seconds are mostly
that server's. Prints one line of JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raykd.store.folder import Folder, joined
from raykd.store.provenance import stamp
from raykd.store.run_files import Ledger
from raykd.store.status import standing
from raykd.study.study import Study

STUDY = Path(__file__).parents[2] / "studies/quickstart.yaml"
EPOCH = {"epoch": 1, "accuracy": 50.0, "accuracy_raw": 49.0, "lr": 0.1, "seconds": 3.0, "terms": {"dcd": 1.0}}


def fill(ledger: Ledger, trials: int) -> None:
    """The files of so many complete trials of four epochs."""
    ledger.begin(Study.read(STUDY, (f"budget/trials={trials}",)).plain())
    for number in range(trials):
        row = {
            "number": number, "role": "searched", "drawn": {"optimizer/lr": 0.05}, "state": "COMPLETE",
            "reason": "", "started": 100.0 + number, "ended": 200.0 + number, "seconds": 100.0,
            "accuracy": 50.0, "epochs": 4, "tries": 0, "lost": 0,
        }  # fmt: skip
        folder = ledger.trial(number)
        folder.write_json("trial.json", row)
        folder.write_json("epochs.json", [EPOCH] * 4)
        folder.write_json("stamp.json", {})
        folder.write_json("recipe.yaml", {})


def seconds(work: Callable[[], Any]) -> float:
    """The middle of five."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return round(sorted(taken)[2], 3)


def measured(uri: str, trials: int) -> dict[str, float]:
    ledger = Ledger(joined(uri, "run"))
    fill(ledger, trials)
    verb = [sys.executable, "-m", "raykd", "status", ledger.folder.uri]
    return {
        "trials": seconds(ledger.trials),
        "standing": seconds(lambda: standing(ledger)),
        "verb": seconds(lambda: subprocess.run(verb, check=True, capture_output=True)),
        "help": seconds(lambda: subprocess.run([*verb[:3], "--help"], check=True, capture_output=True)),
    }


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    found: dict[str, Any] = {"trials": trials, "stamp": stamp()}
    with tempfile.TemporaryDirectory() as folder:
        found["disk"] = measured(folder, trials)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "raykd"
    port = 5599
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        time.sleep(15)
        uri = f"s3://raykd?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        Folder(f"{uri}&allow_bucket_creation=true").reach()
        found["object store"] = measured(uri, trials)
    finally:
        server.kill()
        server.wait()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
