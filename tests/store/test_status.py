"""What `status` says of a run's files, and how long that takes for many."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import raykd
from raykd.store.processors import name_device
from raykd.store.provenance import find_commit, record_provenance, write_environment
from raykd.store.run_files import RunFiles
from raykd.store.status import estimate_seconds_left, get_status, rank_trials
from raykd.study.study import Study

PROGRAM = """
from raykd.store.provenance import record_provenance
print("loaded", flush=True)
input()
print(record_provenance()["commit"])
"""


def write_run(small: Path, run: Path, trials: int) -> RunFiles:
    """The files of a run of which each fourth trial was pruned at its first epoch, of three."""
    run_files = RunFiles(str(run))
    run_files.begin(
        Study.read(small, (f"budget/trials={trials}", "cluster/cpus=2", "budget/disk_gb=1")).to_dict()
    )
    for number in range(trials):
        pruned = number % 4 == 3
        row = {
            "number": number, "role": "searched" if number else "paper", "params": {"optimizer/lr": 0.05},
            "state": "PRUNED" if pruned else "COMPLETE", "reason": "", "started": 1000.0 + 100 * number,
            "ended": 1090.0 + 100 * number, "seconds": 10.0 if pruned else 30.0, "accuracy": 50 + number % 7,
            "epochs": 1 if pruned else 3, "errors": 0, "lost": int(number == 1),
        }  # fmt: skip
        epochs = [{"epoch": 1, "teacher_hits": 90, "teacher_misses": 10, "teacher_seconds_saved": 2.0}]
        folder = run_files.trial(number)
        folder.write_json("trial.json", row)
        folder.write_json("epochs.json", epochs)
        folder.write_json("recipe.yaml", {})
    return run_files


def test_what_is_left_goes_by_the_latest_pace() -> None:
    """A night between an interruption and its resumption is no part of it."""
    study = {"budget": {"trials": 20}}
    starts = [0.0, 100.0, *(50_000 + 100.0 * n for n in range(8))]
    rows: list[dict[str, Any]] = [{"started": t, "ended": t + 90, "seconds": 90.0} for t in starts]
    rows += [{"started": 50_800.0, "ended": None, "seconds": 0.0}]
    assert estimate_seconds_left(study, rows) == pytest.approx(10 * 790 / 8)
    assert estimate_seconds_left(study, rows[-1:]) is None


def test_a_clock_that_is_set_back_gives_no_negative_times(small: Path, tmp_path: Path) -> None:
    """By an hour, in the middle of trial 1; the rows before this version counted its seconds so too."""
    run_files = write_run(small, tmp_path / "run", 3)
    row = run_files.trial(1).read_json("trial.json")
    run_files.trial(1).write_json("trial.json", row | {"ended": row["ended"] - 3600, "seconds": -3510.0})
    row = run_files.trial(2).read_json("trial.json")
    back = {"started": row["started"] - 3600, "ended": row["ended"] - 3600}
    run_files.trial(2).write_json("trial.json", row | back)
    rows = run_files.trials()
    assert all(row["seconds"] >= 0 and row["ended"] >= row["started"] for row in rows)
    status = get_status(run_files)
    assert status["device_hours"] == pytest.approx((30 + 0 + 30) * 2 / 3600)
    assert estimate_seconds_left({"budget": {"trials": 9}}, rows) >= 6 * 30 / 3


def test_a_mixture_of_precisions_or_devices_is_named(small: Path, tmp_path: Path, verb: Any) -> None:
    run_files = write_run(small, tmp_path / "run", 4)
    assert get_status(run_files)["mixtures"] == {}  # who does not say is not counted
    for number, bf16 in enumerate((True, True, False)):
        write_environment(run_files.trial(number), bf16, torch.device("cpu"))
    device = name_device(torch.device("cpu"))
    hostname = socket.gethostname()
    first = {"precision": "bfloat16", "device": device, "hostname": hostname}
    assert run_files.environments([0, 3]) == [first, {}]
    assert get_status(run_files)["mixtures"] == {"precision": {"bfloat16": 2, "float32": 1}}
    assert "mixed     precision: 2 x bfloat16, 1 x float32" in verb("status", str(tmp_path / "run")).stdout

    run_files.trial(1).write("checkpoint.pt", b"")  # it goes on, on another machine
    write_environment(run_files.trial(1), False, torch.device("cpu"))
    write_environment(run_files.trial(1), False, torch.device("cpu"))
    write_environment(run_files.trial(0), False, torch.device("cpu"))  # it begins again
    assert [e["precision"] for e in run_files.environments([0, 1])] == ["float32", "bfloat16, then float32"]
    run_files.trial(2).write_json("environment.json", first | {"device": "NVIDIA H100"})
    assert get_status(run_files)["mixtures"]["device"] == {device: 2, "NVIDIA H100": 1}
    run_files.confirmation("best", 1).write_json("environment.json", first | {"device": "NVIDIA H100"})
    assert get_status(run_files)["mixtures"]["device"] == {device: 2, "NVIDIA H100": 2}  # a retraining too


def test_status_says_what_was_spent_saved_and_kept(small: Path, tmp_path: Path, verb: Any) -> None:
    run_files = write_run(small, tmp_path / "run", 8)
    status = json.loads(verb("status", str(tmp_path / "run"), "--json").stdout)
    assert status["starts"] == {"student": "random", "teacher": "teacher.pth"}
    assert status == json.loads(json.dumps(get_status(run_files)))
    assert status["device_hours"] == pytest.approx((6 * 30 + 2 * 10) * 2 / 3600)
    assert status["saved_by_pruning"] == {"epochs": 4, "device_hours": pytest.approx(2 * 2 * 10 * 2 / 3600)}
    assert status["retries"] == [{"trial": 1, "lost": 1, "errors": 0}]
    assert status["teacher_cache"] == {"trials": 8, "hits": 720, "misses": 80, "seconds_saved": 16.0}
    assert status["disk_bytes"] == sum(p.stat().st_size for p in (tmp_path / "run").rglob("*") if p.is_file())
    output = verb("status", str(tmp_path / "run")).stdout
    for words in (
        "0.11 CPU-hours", "0.02 CPU-hours by pruning (4 epochs)", "of 1000 MB (budget/disk_gb)",
        "starts    student: random, teacher: teacher.pth",
        "90.0 % of its outputs", "1 lost and tried again",
    ):  # fmt: skip
        assert words in output, output
    assert status["best"]["number"] == 6 and rank_trials(run_files.trials())[0]["number"] == 6


def test_what_an_older_run_left_is_read(small: Path, tmp_path: Path) -> None:
    run_files = write_run(small, tmp_path / "run", 2)
    study = run_files.study()
    del study["budget"]["disk_gb"]
    run_files.folder.write_yaml("study.yaml", study)
    for number in range(2):
        run_files.trial(number).write_json("epochs.json", [{"epoch": 1, "accuracy": 1.0}])
    assert get_status(run_files)["teacher_cache"] is None and get_status(run_files)["disk_gb"] is None


@pytest.mark.slow
def test_provenance_names_the_commit_that_the_process_loaded(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "raykd"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(raykd.__file__).parent, package, ignore=ignored)
    git("init", "-q")
    git("add", "raykd")
    git("commit", "-qm", "first")
    first = git("rev-parse", "--short=12", "HEAD")
    assert find_commit(package) == first
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env={"PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "loaded\n"
    (package / "__init__.py").write_text("# changed while it runs\n")
    git("commit", "-qam", "second")
    assert process.communicate("\n")[0].strip() == first
    (package / "__init__.py").write_text("# changed again\n")
    assert find_commit(package) == git("rev-parse", "--short=12", "HEAD") + "-dirty"

    installed = tmp_path / "venv/lib/site-packages/raykd"
    shutil.copytree(package, installed, ignore=ignored)
    assert find_commit(installed) == ""  # the repository around it is another's
    assert find_commit(Path("/nowhere/raykd")) == ""
    assert record_provenance()["commit"] != ""


def test_status_loads_neither_torch_nor_ray() -> None:
    program = """
import sys
from raykd.store import status
from raykd.cli.output import status
from raykd.store.run_files import RunFiles
sys.exit(", ".join({"torch", "ray", "optuna"} & set(sys.modules)) or 0)
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
