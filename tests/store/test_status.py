"""What `status` says of a run's files, and how long that takes for many."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import raykd
from raykd.store.provenance import commit_of, stamp
from raykd.store.run_files import Ledger
from raykd.store.status import leaders, seconds_left, standing
from raykd.study.study import Study

PROGRAM = """
from raykd.ledger.stamp import stamp
print("loaded", flush=True)
input()
print(stamp()["commit"])
"""


def made(small: Path, run: Path, trials: int) -> Ledger:
    """The files of a run of which each fourth trial was pruned at its first epoch, of three."""
    ledger = Ledger(str(run))
    ledger.begin(Study.read(small, (f"budget/trials={trials}", "cluster/cpus=2", "budget/disk_gb=1")).plain())
    for number in range(trials):
        pruned = number % 4 == 3
        row = {
            "number": number, "role": "searched" if number else "paper", "drawn": {"optimizer/lr": 0.05},
            "state": "PRUNED" if pruned else "COMPLETE", "reason": "", "started": 1000.0 + 100 * number,
            "ended": 1090.0 + 100 * number, "seconds": 10.0 if pruned else 30.0, "accuracy": 50 + number % 7,
            "epochs": 1 if pruned else 3, "tries": 0, "lost": int(number == 1),
        }  # fmt: skip
        epochs = [{"epoch": 1, "teacher_hits": 90, "teacher_misses": 10, "teacher_seconds_saved": 2.0}]
        folder = ledger.trial(number)
        folder.write_json("trial.json", row)
        folder.write_json("epochs.json", epochs)
        folder.write_json("recipe.yaml", {})
    return ledger


def test_what_is_left_goes_by_the_latest_pace() -> None:
    """A night between an interruption and its resumption is no part of it."""
    study = {"budget": {"trials": 20}}
    rows = [{"started": 100.0 * n, "ended": 100.0 * n + 90} for n in range(2)]
    rows += [{"started": 50_000 + 100.0 * n, "ended": 50_000 + 100.0 * n + 90} for n in range(8)]
    rows += [{"started": 50_800.0, "ended": None}]
    assert seconds_left(study, rows) == pytest.approx(10 * 790 / 8)
    assert seconds_left(study, rows[-1:]) is None


def test_status_says_what_was_spent_saved_and_kept(small: Path, tmp_path: Path, verb: Any) -> None:
    ledger = made(small, tmp_path / "run", 8)
    stands = json.loads(verb("status", str(tmp_path / "run"), "--json").stdout)
    assert stands == json.loads(json.dumps(standing(ledger)))
    assert stands["device_hours"] == pytest.approx((6 * 30 + 2 * 10) * 2 / 3600)
    assert stands["saved"] == {"epochs": 4, "device_hours": pytest.approx(2 * 2 * 10 * 2 / 3600)}
    assert stands["tried_again"] == [{"trial": 1, "lost": 1, "tries": 0}]
    assert stands["teacher"] == {"trials": 8, "hits": 720, "misses": 80, "seconds_saved": 16.0}
    assert stands["disk_bytes"] == sum(p.stat().st_size for p in (tmp_path / "run").rglob("*") if p.is_file())
    said = verb("status", str(tmp_path / "run")).stdout
    for words in (
        "0.11 CPU-hours", "0.02 CPU-hours by pruning (4 epochs)", "of 1000 MB (budget/disk_gb)",
        "90.0 % of its answers", "1 lost and tried again",
    ):  # fmt: skip
        assert words in said, said
    assert stands["best"]["number"] == 6 and leaders(ledger.trials())[0]["number"] == 6


def test_what_an_older_run_left_is_read(small: Path, tmp_path: Path) -> None:
    ledger = made(small, tmp_path / "run", 2)
    study = ledger.study()
    del study["budget"]["disk_gb"]
    ledger.folder.write_yaml("study.yaml", study)
    for number in range(2):
        ledger.trial(number).write_json("epochs.json", [{"epoch": 1, "accuracy": 1.0}])
    assert standing(ledger)["teacher"] is None and standing(ledger)["disk_gb"] is None


@pytest.mark.slow
def test_the_stamp_names_the_commit_that_the_process_loaded(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        asked = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *words]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "raykd"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(raykd.__file__).parent, package, ignore=ignored)
    git("init", "-q")
    git("add", "raykd")
    git("commit", "-qm", "first")
    first = git("rev-parse", "--short=12", "HEAD")
    assert commit_of(package) == first
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env={"PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "loaded\n"
    (package / "__init__.py").write_text("# changed while it runs\n")
    git("commit", "-qam", "second")
    assert process.communicate("\n")[0].strip() == first
    (package / "__init__.py").write_text("# changed again\n")
    assert commit_of(package) == git("rev-parse", "--short=12", "HEAD") + "-dirty"

    installed = tmp_path / "venv/lib/site-packages/raykd"
    shutil.copytree(package, installed, ignore=ignored)
    assert commit_of(installed) == ""  # the repository around it is another's
    assert commit_of(Path("/nowhere/raykd")) == ""
    assert stamp()["commit"] != ""


def test_status_loads_neither_torch_nor_ray() -> None:
    program = """
import sys
from raykd.store import status
from raykd.cli.output import status
from raykd.store.run_files import Ledger
sys.exit(", ".join({"torch", "ray", "optuna"} & set(sys.modules)) or 0)
"""
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
