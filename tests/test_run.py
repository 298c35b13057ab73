"""A run in code: its tables say what their docstrings say, and answer the README's question."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from support import fake_runs

import raykd
from raykd.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> raykd.Run:
    folder = tmp_path_factory.mktemp("runs")
    return raykd.Run.open(
        Path(fake_runs.write_run(fake_runs.make_study("made", trials=9), folder).folder.uri)
    )


@pytest.mark.parametrize("name", ["trials", "epochs", "confirmations"])
def test_the_docstring_names_every_column(run: raykd.Run, name: str) -> None:
    table, doc = getattr(run, name)(), getattr(raykd.Run, name).__doc__ or ""
    assert table.num_rows > 0
    words = re.split(r"[\s,:;]+", doc)
    for column in table.column_names:
        searched = name == "trials" and "/" in column
        expected = "searched field" if searched else "term/<name>" if column.startswith("term/") else column
        assert expected in doc if searched else expected in words, column


def test_seeds_of_the_best_against_the_paper(run: raykd.Run) -> None:
    """The five lines of the README."""
    table = run.confirmations()
    means = table.group_by("role").aggregate(
        [("accuracy", "mean"), ("accuracy", "stddev"), ("seed", "count")]
    )
    by_role = {row["role"]: row for row in means.to_pylist()}
    assert set(by_role) == {"best", "paper", "ce", "kd"}
    assert (
        by_role["best"]["accuracy_mean"] > by_role["ce"]["accuracy_mean"] and by_role["kd"]["seed_count"] == 3
    )


def test_a_run_that_was_not_confirmed_has_an_empty_table(tmp_path: Path) -> None:
    run_files = fake_runs.write_run(fake_runs.make_study("begun", trials=2), tmp_path, confirmed=False)
    assert raykd.Run(run_files).confirmations().num_rows == 0
    assert isinstance(raykd.Run(run_files).trials(), pa.Table)
    with pytest.raises(UserError, match="no run here"):
        raykd.Run.open(tmp_path / "nowhere")
