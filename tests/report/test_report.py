"""The report: made from plain rows alone, whole or half-written, hostile or large."""

import csv
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.fake_report import SPACE, made

from raykd.report import write
from raykd.report.rows.types import PublishedRow, RunData
from raykd.spec import Choice, Dimension

FIGURES = {
    "history", "importances", "contours", "parallel", "slices",
    "curves", "ranks", "confirmed", "embeddings", "timeline", "terms",
}  # fmt: skip
SECTIONS = [
    "course", "confirmation", "beyond", "recipe", "fields", "pruning",
    "losses", "cost", "space", "trials", "facts",
]  # fmt: skip
TABLES = ("trials", "epochs", "confirmed", "beyond", "classes", "importances", "rank_correlations")


def empty() -> RunData:
    return replace(
        made(3), state="running", facts={}, trials=[], epochs=[], rungs=[], confirm=[], published=(),
        teacher_hours=0.0,
    )  # fmt: skip


def missing(page: str) -> set[str]:
    return set(re.findall(r'data-missing="([\w-]+)"', page))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write.write_page(made(), tmp_path_factory.mktemp("report"))


@pytest.mark.slow
def test_every_figure_is_drawn_as_png_and_svg_and_in_the_page(whole: Path) -> None:
    page = whole.read_text(encoding="utf-8")
    assert set(re.findall(r'data-figure="(\w+)"', page)) == FIGURES
    assert not missing(page)
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
    page, run = whole.read_text(encoding="utf-8"), made()
    best, paper = run.finished()[0], run.at_paper()
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
    page = write.write_page(empty(), tmp_path).read_text(encoding="utf-8")
    assert missing(page) == FIGURES
    assert "No trial has finished yet" in page
    assert "The run holds no trial yet." in page


@pytest.mark.slow
def test_a_running_half_written_study_shows_what_there_is(tmp_path: Path) -> None:
    """Rows that disagree: no epochs of a trial, foreign values, not-a-numbers, times out of order."""
    run, nan = made(12), float("nan")
    trials = list(run.trials)
    trials[1] = replace(trials[1], drawn={**trials[1].drawn, "optimizer/lr": "fast"})
    trials[2] = replace(trials[2], accuracy=nan, drawn={})
    trials[4] = replace(trials[4], ended=(trials[4].started or 0) - 50)
    trials[6:9] = [replace(t, state="RUNNING", ended=None, accuracy=nan) for t in trials[6:9]]
    trials[9:] = [
        replace(t, state="WAITING", started=None, ended=None, accuracy=None, epochs=0) for t in trials[9:]
    ]
    epochs = [r for r in run.epochs if r.trial not in (3, 9, 10, 11)]
    epochs = [replace(r, accuracy=nan, terms={"task": nan}) if r.trial == 5 else r for r in epochs]
    half = replace(
        run, state="running", trials=trials, epochs=[*epochs, *epochs[:5]], confirm=[],
        problems=["epochs of trial 8 end in the middle of a row"],
    )  # fmt: skip
    page = write.write_page(half, tmp_path).read_text(encoding="utf-8")
    assert {"importances", "contours", "confirmed"} <= missing(page)
    assert {"history", "curves", "timeline"}.isdisjoint(missing(page))
    assert "still running" in page
    assert "in the middle of a row" in page


@pytest.mark.slow
def test_one_finished_trial_is_enough_for_a_page(tmp_path: Path) -> None:
    run = made(1)
    page = write.write_page(replace(run, confirm=run.confirm[:1]), tmp_path).read_text(encoding="utf-8")
    assert "history" not in missing(page)


@pytest.mark.slow
def test_no_text_of_a_run_becomes_markup(tmp_path: Path) -> None:
    evil, run = '<script>alert("1")</script>&$x_{\n%', made(24)
    lr = f"{evil}lr"
    space: dict[str, Dimension] = {lr: SPACE["optimizer/lr"], "odd": Choice((evil, "plain"))}
    trials = [
        replace(t, device=evil, reason=evil, drawn={lr: t.drawn["optimizer/lr"], "odd": odd})
        for t, odd in zip(run.trials, [evil, "plain"] * 12, strict=True)
    ]
    hostile = replace(
        run, name=evil, method=evil, status=evil, paper=evil, student=evil, teacher=evil, dataset=evil,
        split=evil, facts={evil: evil}, space=space, trials=trials, problems=[evil], device=evil,
        units={lr: evil},
        epochs=[replace(r, terms={evil: 1.0 * r.epoch}) for r in run.epochs if r.trial < 9],
        confirm=[replace(c, role=evil) for c in run.confirm], published=[PublishedRow(1.0, evil)],
    )  # fmt: skip
    page = write.write_page(hostile, tmp_path).read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "alert(&quot;1&quot;)" in page
    assert "script>alert" not in page
    assert set(re.findall(r'data-figure="(\w+)"', page)) >= FIGURES - {"contours", "ranks"}
