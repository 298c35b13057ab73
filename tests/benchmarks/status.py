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

from raykd.store.folder import Folder, join_uri
from raykd.store.provenance import record_provenance
from raykd.store.run_files import RunFiles
from raykd.store.status import get_status
from raykd.study.study import Study

STUDY = Path(__file__).parents[2] / "studies/quickstart.yaml"
EPOCH = {"epoch": 1, "accuracy": 50.0, "accuracy_raw": 49.0, "lr": 0.1, "seconds": 3.0, "terms": {"dcd": 1.0}}


def fill(run_files: RunFiles, trials: int) -> None:
    """The files of so many complete trials of four epochs."""
    run_files.begin(Study.read(STUDY, (f"budget/trials={trials}",)).to_dict())
    for number in range(trials):
        row = {
            "number": number, "role": "searched", "params": {"optimizer/lr": 0.05}, "state": "COMPLETE",
            "reason": "", "started": 100.0 + number, "ended": 200.0 + number, "seconds": 100.0,
            "accuracy": 50.0, "epochs": 4, "errors": 0, "lost": 0,
        }  # fmt: skip
        folder = run_files.trial(number)
        folder.write_json("trial.json", row)
        folder.write_json("epochs.json", [EPOCH] * 4)
        folder.write_json("provenance.json", {})
        folder.write_json("recipe.yaml", {})


def seconds(work: Callable[[], Any]) -> float:
    """The middle of five."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return round(sorted(taken)[2], 3)


def measure(uri: str, trials: int) -> dict[str, float]:
    run_files = RunFiles(join_uri(uri, "run"))
    fill(run_files, trials)
    verb = [sys.executable, "-m", "raykd", "status", run_files.folder.uri]
    return {
        "trials": seconds(run_files.trials),
        "get_status": seconds(lambda: get_status(run_files)),
        "verb": seconds(lambda: subprocess.run(verb, check=True, capture_output=True)),
        "help": seconds(lambda: subprocess.run([*verb[:3], "--help"], check=True, capture_output=True)),
    }


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    result: dict[str, Any] = {"trials": trials, "provenance": record_provenance()}
    with tempfile.TemporaryDirectory() as folder:
        result["disk"] = measure(folder, trials)
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
        Folder(f"{uri}&allow_bucket_creation=true").check_reachable()
        result["object store"] = measure(uri, trials)
    finally:
        server.kill()
        server.wait()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
