"""A run in code: its tables say what their docstrings say, and answer the README's question."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from support import fake_runs

import raykd
from raykd.errors import BadInput


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> raykd.Run:
    folder = tmp_path_factory.mktemp("runs")
    return raykd.Run.open(Path(fake_runs.write(fake_runs.study("made", trials=9), folder).folder.uri))


@pytest.mark.parametrize("name", ["trials", "epochs", "confirmations"])
def test_the_docstring_names_every_column(run: raykd.Run, name: str) -> None:
    table, said = getattr(run, name)(), getattr(raykd.Run, name).__doc__ or ""
    assert table.num_rows > 0
    words = re.split(r"[\s,:;]+", said)
    for column in table.column_names:
        drawn = name == "trials" and "/" in column
        told = "drawn field" if drawn else "term/<name>" if column.startswith("term/") else column
        assert told in said if drawn else told in words, column


def test_seeds_of_the_best_against_the_paper(run: raykd.Run) -> None:
    """The five lines of the README."""
    table = run.confirmations()
    means = table.group_by("role").aggregate(
        [("accuracy", "mean"), ("accuracy", "stddev"), ("seed", "count")]
    )
    told = {row["role"]: row for row in means.to_pylist()}
    assert set(told) == {"best", "paper", "ce", "kd"}
    assert told["best"]["accuracy_mean"] > told["ce"]["accuracy_mean"] and told["kd"]["seed_count"] == 3


def test_a_run_that_was_not_confirmed_has_an_empty_table(tmp_path: Path) -> None:
    begun = fake_runs.write(fake_runs.study("begun", trials=2), tmp_path, confirmed=False)
    assert raykd.Run(begun).confirmations().num_rows == 0
    assert isinstance(raykd.Run(begun).trials(), pa.Table)
    with pytest.raises(BadInput, match="no run here"):
        raykd.Run.open(tmp_path / "nowhere")
