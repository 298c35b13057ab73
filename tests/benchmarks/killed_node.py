"""The study of studies/comparison on two loopback nodes, undisturbed and with one of them killed: one table.

    python tests/benchmarks/killed_node.py DATA OUT [PATH=VALUE ...]

A trial has two workers, one on each node of one CPU, so one is trained at a time and no search depends on
which is faster. In the second run a node is killed (SIGKILL to its raylet and its workers) at an epoch of the
first method's second trial, and another comes. Fails unless all rows of trials and retrainings are equal, bit
by bit.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import raykd
from raykd.store.provenance import record_provenance
from raykd.store.run_files import RunFiles

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.run_files import read_epochs, wait_for
from support.two_nodes import kill_last_node, start_two_nodes

STUDY = Path(__file__).parents[2] / "studies/comparison/brief.yaml"
SETTINGS = (
    "methods=[ce,kd]",
    "teacher={net: resnet14, train: {epochs: 2}}",
    "data/images=2000",
    "budget/trials=3",
    "confirm/seeds=1",
    "confirm/workers=2",
    "cluster={workers: 2, cpus: 1}",
)
CLOCKS = {"started", "ended", "seconds", "seconds_per_epoch", "lost", "reason"}  # what may differ


def launch(root: str, storage: Path, settings: list[str], kill: bool) -> list[dict[str, Any]]:
    """Returns the rows of all trials and retrainings, in order."""
    words = ["launch", str(STUDY), "--data", root, "--storage", str(storage)]
    words += [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    with start_two_nodes() as cluster:
        driver = subprocess.Popen([sys.executable, "-m", "raykd", *words, "--address", cluster.address])
        if kill:
            first = storage / "cifar100-brief/ce"
            wait_for(lambda: driver.poll() is not None or bool(read_epochs(first, 1)), 3600)
            kill_last_node(cluster)
            print("killed a node", flush=True)
            cluster.add_node(num_cpus=1)
        if driver.wait():
            sys.exit(f"the driver ended with {driver.returncode}")
    rows = []
    for run_files in RunFiles.open_any(str(storage / "cifar100-brief")).list_runs():
        run = raykd.Run.open(run_files.folder.uri)
        print(f"{run_files.folder.uri}: {sum(row['lost'] for row in run_files.trials())} lost")
        for table in (run.trials(), run.confirmations()):
            rows += table.drop_columns(list(CLOCKS & set(table.column_names))).to_pylist()
    return rows


def main(root: str, out: str, *settings: str) -> None:
    whole, disturbed = (
        launch(root, Path(out) / name, list(settings), name == "killed") for name in ("whole", "killed")
    )
    for row in whole:
        print(row)
    provenance = record_provenance()
    print(f"{len(whole)} rows; {provenance['hardware']}, commit {provenance['commit']}")
    assert whole == disturbed, [pair for pair in zip(whole, disturbed, strict=True) if pair[0] != pair[1]]


if __name__ == "__main__":
    main(*sys.argv[1:])
