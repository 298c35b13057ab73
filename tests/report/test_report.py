"""The report: made from plain rows alone, whole or half-written, hostile or large."""

import csv
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.fake_report import SPACE, make_run

from raykd.report import write
from raykd.report.rows.types import PublishedRow, RunData
from raykd.spec import Choice, Dimension

FIGURES = {
    "history", "importances", "contours", "parallel", "slices",
    "learning_curves", "rank_correlations", "confirmations", "embeddings", "timeline", "loss_terms",
}  # fmt: skip
SECTIONS = [
    "search", "confirmation", "analysis", "recipe", "parameters", "pruning",
    "losses", "cost", "space", "trials", "facts",
]  # fmt: skip
TABLES = ("trials", "epochs", "confirmations", "analyses", "classes", "importances", "rank_correlations")


def make_empty_run() -> RunData:
    return replace(
        make_run(3), state="running", facts={}, trials=[], epochs=[], rungs=[], confirmations=[],
        published=(), teacher_hours=0.0,
    )  # fmt: skip


def missing_figures(page: str) -> set[str]:
    return set(re.findall(r'data-missing="([\w-]+)"', page))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write.write_page(make_run(), tmp_path_factory.mktemp("report"))


@pytest.mark.slow
def test_every_figure_is_drawn_as_png_and_svg_and_in_the_page(whole: Path) -> None:
    page = whole.read_text(encoding="utf-8")
    assert set(re.findall(r'data-figure="(\w+)"', page)) == FIGURES
    assert not missing_figures(page)
    for name in FIGURES:
        assert (whole.parent / f"figures/{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert ET.parse(whole.parent / f"figures/{name}.svg").getroot().tag.endswith("svg")


@pytest.mark.slow
def test_the_page_needs_nothing_from_outside_and_its_ids_are_unique(whole: Path) -> None:
    page = whole.read_text(encoding="utf-8")
    assert re.findall(r'id="([^"]+)"', page[:200]) == []
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(ids)
    assert re.findall(r'<(?:script|img|iframe)[^>]*src=|@import|<link[^>]*href="http', page) == []
    assert "\n<section" in page
    assert re.findall(r'<section aria-labelledby="(\w+)"', page) == SECTIONS


@pytest.mark.slow
def test_the_headline_states_numbers_with_their_n(whole: Path) -> None:
    page, run = whole.read_text(encoding="utf-8"), make_run()
    best, paper = run.complete_trials()[0], run.paper_trial()
    assert paper is not None
    assert f"{best.accuracy:.2f} %" in page
    assert f"{paper.accuracy:.2f} %" in page
    assert f"trial {best.number}, one seed" in page
    assert "n=5 seeds" in page
    assert "reconstruction" in page


@pytest.mark.slow
def test_tables_carry_units_and_descriptions(whole: Path) -> None:
    tables = whole.parent / "tables"
    for name in TABLES:
        table = pq.read_table(tables / f"{name}.parquet")
        assert table.num_rows > 0
        for field in table.schema:
            assert field.metadata[b"description"], f"{name}: {field.name} has no description"
            assert b"unit" in field.metadata
        with (tables / f"{name}.csv").open(newline="") as file:
            lines = list(csv.reader(file))
        assert lines[0] == table.column_names
        assert len(lines) == table.num_rows + 1
    trials = pq.read_table(tables / "trials.parquet")
    assert set(SPACE) < set(trials.column_names)
    assert trials.schema.field("held_out_accuracy").metadata[b"unit"] == b"%"
    assert str(trials.schema.field("method/projection").type) == "int64"
    assert str(trials.schema.field("method/learnable_temperature").type) == "bool"
    kinds, fractions = (trials.column(f"method/preview/{n}").to_pylist() for n in ("kind", "warmup_fraction"))
    assert all((k == "linear") == (f is not None) for k, f in zip(kinds, fractions, strict=True))


def test_a_run_without_trials_says_so(tmp_path: Path) -> None:
    page = write.write_page(make_empty_run(), tmp_path).read_text(encoding="utf-8")
    assert missing_figures(page) == FIGURES
    assert "No trial has finished yet" in page
    assert "The run holds no trial yet." in page


@pytest.mark.slow
def test_a_running_half_written_study_shows_what_there_is(tmp_path: Path) -> None:
    """Rows that disagree: no epochs of a trial, foreign values, not-a-numbers, times out of order."""
    run, nan = make_run(12), float("nan")
    trials = list(run.trials)
    trials[1] = replace(trials[1], params={**trials[1].params, "optimizer/lr": "fast"})
    trials[2] = replace(trials[2], accuracy=nan, params={})
    trials[4] = replace(trials[4], ended=(trials[4].started or 0) - 50)
    trials[6:9] = [replace(t, state="RUNNING", ended=None, accuracy=nan) for t in trials[6:9]]
    trials[9:] = [
        replace(t, state="WAITING", started=None, ended=None, accuracy=None, epochs=0) for t in trials[9:]
    ]
    epochs = [r for r in run.epochs if r.trial not in (3, 9, 10, 11)]
    epochs = [replace(r, accuracy=nan, terms={"task": nan}) if r.trial == 5 else r for r in epochs]
    half_written = replace(
        run, state="running", trials=trials, epochs=[*epochs, *epochs[:5]], confirmations=[],
        problems=["epochs of trial 8 end in the middle of a row"],
    )  # fmt: skip
    page = write.write_page(half_written, tmp_path).read_text(encoding="utf-8")
    assert {"importances", "contours", "confirmations"} <= missing_figures(page)
    assert {"history", "learning_curves", "timeline"}.isdisjoint(missing_figures(page))
    assert "still running" in page
    assert "in the middle of a row" in page


@pytest.mark.slow
def test_one_finished_trial_is_enough_for_a_page(tmp_path: Path) -> None:
    run = make_run(1)
    page = write.write_page(replace(run, confirmations=run.confirmations[:1]), tmp_path).read_text(
        encoding="utf-8"
    )
    assert "history" not in missing_figures(page)


@pytest.mark.slow
def test_no_text_of_a_run_becomes_markup(tmp_path: Path) -> None:
    markup, run = '<script>alert("1")</script>&$x_{\n%', make_run(24)
    lr = f"{markup}lr"
    space: dict[str, Dimension] = {lr: SPACE["optimizer/lr"], "odd": Choice((markup, "plain"))}
    trials = [
        replace(t, device=markup, reason=markup, params={lr: t.params["optimizer/lr"], "odd": odd})
        for t, odd in zip(run.trials, [markup, "plain"] * 12, strict=True)
    ]
    run_of_markup = replace(
        run, name=markup, method=markup, status=markup, paper=markup, student=markup, teacher=markup,
        dataset=markup, split=markup, facts={markup: markup}, space=space, trials=trials,
        problems=[markup], device_kind=markup, units={lr: markup},
        epochs=[replace(r, terms={markup: 1.0 * r.epoch}) for r in run.epochs if r.trial < 9],
        confirmations=[replace(c, role=markup) for c in run.confirmations],
        published=[PublishedRow(1.0, markup)],
    )  # fmt: skip
    page = write.write_page(run_of_markup, tmp_path).read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "alert(&#34;1&#34;)" in page
    assert "script>alert" not in page
    assert set(re.findall(r'data-figure="(\w+)"', page)) >= FIGURES - {"contours", "rank_correlations"}
