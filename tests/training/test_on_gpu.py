"""What is run on the day there is a GPU (make bench-gpu), tried on the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")
NETS = ("resnet8", "resnet8")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: make test-gpu")
def test_without_a_gpu_one_line_says_so() -> None:
    words = [sys.executable, BENCHMARKS / "on_gpu/run.py"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.endswith("no CUDA GPU can be used here, nothing was run")


@pytest.mark.slow
def test_checks_tables_and_the_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from on_gpu import checks, run, speed

    kept = run.Kept(tmp_path / "kept.json", "this machine")
    all_checks = checks.list_checks(["kd"])
    names = [name for name in all_checks if name not in ("resumed", "collectives")]
    assert run.run_checks(CPU, {name: all_checks[name] for name in names}, kept), capsys.readouterr().out
    assert "not replayed: none" in capsys.readouterr().out
    assert kept.get(names[0], lambda: "found again").startswith("methods in float32 are as on the CPU")
    wrong = {name: check for name, check in checks.list_checks(["none"]).items() if name.endswith(" none")}
    assert not run.run_checks(CPU, wrong, kept)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("WRONG: methods none: AssertionError: none in float32: ")
    assert len(said) == 2 and "none: " in said[1]
    records = tmp_path / "RECORDS.md"
    records.write_text("# Records\n\n## Ours\n\nold\n\n## Last\n\nline\n")
    ways = ["table", "graph", "graph + table"]
    table = list(speed.format_pairs(ways, {"small": speed.measure_pair(NETS, ways, CPU, 1, 2)}))
    assert len(table) == 3 and "1.00x" in table[2] and "none" not in table[2]
    one = {"live": 100.0, "table": 150.0, "live, MPS": "no control"}
    row = [*speed.format_together({1: one, 2: one})][2]
    assert row == "| 1 | 100 (1.00) | 150 (1.50) | none: no control |"
    for _ in range(2):
        run.write_section(records, "## Ours", table)
    last, ours = records.read_text().split("\n## ")[1:]
    assert last == "Last\n\nline\n" and ours == "\n".join(["Ours", "", *table, ""])
