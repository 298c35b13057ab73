"""What is run on the day there is a GPU (make bench-gpu), tried on the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")
NETS = ("resnet8", "resnet8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: make test-gpu")
def test_without_a_gpu_one_line_says_so() -> None:
    words = [sys.executable, BENCHMARKS / "on_gpu/run.py"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.endswith("can use no CUDA GPU here: nothing was run")


@pytest.mark.slow
def test_checks_tables_and_the_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from on_gpu import checks, run, speed

    methods, graphed, _, _, decoded = checks.list_checks(["kd"])
    assert run.run_checks(CPU, [methods, graphed, decoded]), capsys.readouterr().out
    assert "not replayed: none" in capsys.readouterr().out
    records = tmp_path / "RECORDS.md"
    records.write_text("# Records\n\n## Ours\n\nold\n\n## Last\n\nline\n")
    table = list(speed.format_pairs([NETS], ["eager", "graph"], CPU, 1, 2))
    assert len(table) == 3 and "1.00x" in table[2]
    for _ in range(2):
        run.write_section(records, "## Ours", table)
    last, ours = records.read_text().split("\n## ")[1:]
    assert last == "Last\n\nline\n" and ours == "\n".join(["Ours", "", *table, ""])
