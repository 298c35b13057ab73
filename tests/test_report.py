"""The report: made from plain rows alone, whole or half-written, hostile or large."""

import csv
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raykd import report
from raykd.report import ConfirmRow, EpochRow, PublishedRow, RunData, TrialRow, stats
from raykd.report.importances import importances, unit
from raykd.space import Choice, Dimension, Range, Scalar

FIGURES = {
    "history", "importances", "contour", "parallel", "slices",
    "curves", "ranks", "confirmed", "timeline", "terms",
}  # fmt: skip
SECTIONS = [
    "course", "confirmation", "recipe", "fields", "pruning",
    "losses", "cost", "space", "trials", "facts",
]  # fmt: skip
NAN = "loss term 'contrast' is nan at epoch 3, step 141"
CONFIRMED = {"best": 75.1, "paper": 74.3, "ce": 70.2, "kd": 73.5}  # mean test accuracies
LINEAR = (("method/preview/kind", "linear"),)
SPACE: dict[str, Dimension] = {
    "method/temperature": Range(0.02, 0.5, log=True),
    "method/weights/contrast": Range(0.1, 10, log=True),
    "method/weights/task": Range(0.1, 2),
    "method/preview/kind": Choice(("constant", "linear", "exponential")),
    "method/preview/warmup_fraction": Range(0.05, 0.5, when=LINEAR),
    "method/projection": Range(32, 512, log=True, integer=True),
    "method/learnable_temperature": Choice((True, False)),
    "optimizer/lr": Range(0.005, 0.5, log=True),
    "optimizer/weight_decay": Range(1e-5, 1e-2, log=True),
    "optimizer/momentum": Range(0.8, 0.99),
    "data/rotations": Choice((1, 4)),
    "loop/label_smoothing": Range(0.0, 0.2),
}
PAPER: dict[str, Scalar] = {
    "method/temperature": 0.07, "method/weights/contrast": 0.8, "method/weights/task": 1.0,
    "method/preview/kind": "constant", "method/projection": 128, "method/learnable_temperature": False,
    "optimizer/lr": 0.05, "optimizer/weight_decay": 5e-4, "optimizer/momentum": 0.9, "data/rotations": 1,
    "loop/label_smoothing": 0.0,
}  # fmt: skip


def draw(rng: np.random.Generator) -> dict[str, Scalar]:
    """One random point of SPACE."""
    drawn: dict[str, Scalar] = {}
    for path, of in SPACE.items():
        if any(drawn.get(parent) != value for parent, value in of.when):
            continue
        if isinstance(of, Choice):
            drawn[path] = of.values[rng.integers(len(of.values))]
            continue
        value = (
            float(np.exp(rng.uniform(np.log(of.low), np.log(of.high))))
            if of.log
            else rng.uniform(of.low, of.high)
        )
        drawn[path] = round(value) if of.integer else float(value)
    return drawn


def end(drawn: dict[str, Scalar], rng: np.random.Generator) -> float:
    """A made-up final accuracy: learning rate first, temperature and weight next, some noise."""
    lr, temperature = np.log10(float(drawn["optimizer/lr"])), np.log10(float(drawn["method/temperature"]))
    contrast = np.log10(float(drawn["method/weights/contrast"]))
    loss = (
        9 * (lr + 1.2) ** 2 + 4 * (temperature + 0.9) ** 2 + 2 * (contrast - 0.2) ** 2 + rng.normal(0, 0.35)
    )
    return float(73.5 - loss - (1.5 if drawn["data/rotations"] == 4 else 0))


def made(count: int = 40, budget: int = 24, seed: int = 0) -> RunData:
    """A run as a study leaves it: conditional fields, pruned and failed trials, four devices."""
    rng = np.random.default_rng(seed)
    rungs, trials, epochs, free = [budget // 4, budget // 2], [], [], [1.7e9] * 4
    for number in range(count):
        drawn = dict(PAPER) if number == 0 else draw(rng)
        final, device = end(drawn, rng), int(np.argmin(free))
        state, last, reason = "COMPLETE", budget, ""
        if number and number % 17 != 9 and final < 69 and rng.random() < 0.7:
            state, last, reason = "PRUNED", int(rng.choice(rungs)), "below the median at its rung"
        elif number % 17 == 9:
            state, last, reason = "FAIL", int(rng.integers(0, 4)), NAN
            final = 1.0 if number % 34 == 9 else final
        rows = [row(number, e, budget, final, rng) for e in range(1, last + 1)]
        took = last * float(rng.uniform(40, 60)) + 20
        trials.append(
            TrialRow(
                number, state, drawn, rows[-1].accuracy if rows else None, last, free[device],
                free[device] + took,
                reason, "paper" if number == 0 else "searched", f"gpu-node-{device // 2}/cuda:{device % 2}",
            )
        )  # fmt: skip
        free[device] += took + 15
        epochs += rows
    best = max((t for t in trials if t.state == "COMPLETE"), key=lambda t: t.accuracy or 0)
    seeds = [
        ConfirmRow(role, {"best": best.number, "paper": 0}.get(role), s, base + float(rng.normal(0, 0.25)))
        for role, base in CONFIRMED.items()
        for s in range(5)
    ]
    return RunData(
        name="wcord-resnet32x4-resnet8x4", method="wcord", status="reconstruction",
        paper="Chen et al., Wasserstein Contrastive Representation Distillation, CVPR 2021",
        student="resnet8x4", teacher="resnet32x4", data="CIFAR-100", state="finished",
        facts={"commit": "0123abc", "hardware": "4 x NVIDIA H200", "command": "raykd launch wcord.yaml"},
        space=SPACE, paper_point=PAPER, trials=trials, epochs=epochs, budget_epochs=budget, rungs=rungs,
        confirm=seeds,
        published=PublishedRow(75.46, "table 1 of the paper"),
        best={p: (PAPER.get(p), best.drawn.get(p)) for p in SPACE},
        device_hours=sum(until - 1.7e9 for until in free) / 3600,
        units={"loop/label_smoothing": "fraction"},
    )  # fmt: skip


def row(trial: int, epoch: int, budget: int, final: float, rng: np.random.Generator) -> EpochRow:
    t = epoch / budget
    averaged = final * (1 - np.exp(-6 * t)) / (1 - np.exp(-6)) + rng.normal(0, 0.15) * (epoch < budget)
    raw = averaged - 8 * (1 - t) + rng.normal(0, 2.5) * (1 - t)
    terms = {
        "task": 3.5 * np.exp(-2 * t) + 0.4,
        "contrast": 5 - 2 * t + 0.01 * trial % 1,
        "kd": 1 / (t + 0.2),
    }
    lr = 0.05 * 0.1 ** sum(t > m for m in (0.625, 0.75, 0.875))
    return EpochRow(
        trial, epoch, float(averaged), float(raw), 50.0, lr, {k: float(v) for k, v in terms.items()}
    )


def empty() -> RunData:
    return replace(
        made(3), state="running", facts={}, trials=[], epochs=[], rungs=[], confirm=[], published=None,
        best={}, device_hours=None,
    )  # fmt: skip


def missing(page: str) -> set[str]:
    return set(re.findall(r'data-missing="(\w+)"', page))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(made(), tmp_path_factory.mktemp("report"))


def test_every_figure_is_drawn_as_png_and_svg_and_in_the_page(whole: Path) -> None:
    page = whole.read_text(encoding="utf-8")
    assert set(re.findall(r'data-figure="(\w+)"', page)) == FIGURES
    assert not missing(page)
    for name in FIGURES:
        assert (whole.parent / f"figures/{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert ET.parse(whole.parent / f"figures/{name}.svg").getroot().tag.endswith("svg")


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


def test_the_headline_states_numbers_with_their_n(whole: Path) -> None:
    page, run = whole.read_text(encoding="utf-8"), made()
    best, paper = run.finished()[0], run.at_paper()
    assert paper is not None
    assert f"{best.accuracy:.2f} %" in page
    assert f"{paper.accuracy:.2f} %" in page
    assert f"trial {best.number}, one seed" in page
    assert "n=5 seeds" in page
    assert "reconstruction" in page


def test_tables_carry_units_and_descriptions(whole: Path) -> None:
    tables = whole.parent / "tables"
    for name in ("trials", "epochs", "confirmed", "importances", "rank_correlations"):
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
    page = report.write(empty(), tmp_path).read_text(encoding="utf-8")
    assert missing(page) == FIGURES
    assert "No trial has finished yet" in page
    assert "The run holds no trial yet." in page


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
        run, state="running", trials=trials, epochs=[*epochs, *epochs[:5]], confirm=[], best={},
        device_hours=None,
        problems=["epochs of trial 8 end in the middle of a row"],
    )  # fmt: skip
    page = report.write(half, tmp_path).read_text(encoding="utf-8")
    assert {"importances", "contour", "confirmed"} <= missing(page)
    assert {"history", "curves", "timeline"}.isdisjoint(missing(page))
    assert "still running" in page
    assert "in the middle of a row" in page


def test_one_finished_trial_is_enough_for_a_page(tmp_path: Path) -> None:
    run = made(1)
    page = report.write(replace(run, confirm=run.confirm[:1]), tmp_path).read_text(encoding="utf-8")
    assert "history" not in missing(page)


def test_no_text_of_a_run_becomes_markup(tmp_path: Path) -> None:
    evil, run = '<script>alert("1")</script>&$x_{\n%', made(24)
    lr = f"{evil}lr"
    space: dict[str, Dimension] = {lr: SPACE["optimizer/lr"], "odd": Choice((evil, "plain"))}
    trials = [
        replace(t, device=evil, reason=evil, drawn={lr: t.drawn["optimizer/lr"], "odd": odd})
        for t, odd in zip(run.trials, [evil, "plain"] * 12, strict=True)
    ]
    hostile = replace(
        run, name=evil, method=evil, status=evil, paper=evil, student=evil, teacher=evil, data=evil,
        facts={evil: evil}, space=space, trials=trials, best={evil: (evil, 1)}, problems=[evil],
        units={lr: evil},
        epochs=[replace(r, terms={evil: 1.0 * r.epoch}) for r in run.epochs if r.trial < 9],
        confirm=[replace(c, role=evil) for c in run.confirm], published=PublishedRow(1.0, evil),
    )  # fmt: skip
    page = report.write(hostile, tmp_path).read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "alert(&quot;1&quot;)" in page
    assert "script>alert" not in page
    assert set(re.findall(r'data-figure="(\w+)"', page)) >= FIGURES - {"contour", "ranks"}


@pytest.mark.slow
def test_a_thousand_trials_stay_small(tmp_path: Path) -> None:
    page = report.write(made(1000, budget=30), tmp_path)
    assert page.stat().st_size < 10e6
    text = page.read_text(encoding="utf-8")
    assert text.count("<tr>") > 1000
    assert not missing(text)


def test_importances_find_the_field_that_decides() -> None:
    found = importances(made(120, budget=4))
    assert not isinstance(found, str)
    assert found.rows[0].path == "optimizer/lr"
    assert found.rows[0].low > 0
    assert found.error < found.baseline
    assert all(row.low <= row.mean <= row.high for row in found.rows)


def test_a_value_on_the_scale_of_its_range() -> None:
    assert unit(Range(0.01, 1, log=True), 0.1) == pytest.approx(0.5)
    assert unit(Range(2, 4), 3) == pytest.approx(0.5)
    assert unit(Choice(("a", "b", "c")), "c") == 1.0
    assert np.isnan(unit(Range(2, 4), "fast"))
    assert np.isnan(unit(Choice((1, 2)), 3))


def test_intervals_and_paired_differences_by_hand() -> None:
    mean = stats.mean_interval([1.0, 2.0, 3.0])
    assert (mean.n, mean.mean) == (3, 2.0)
    assert mean.half == pytest.approx(4.302653 / np.sqrt(3))
    assert stats.mean_interval([1.0]).half is None
    pair = stats.paired({0: 2.0, 1: 4.0, 2: 6.5, 7: 99.0}, {0: 1.0, 1: 2.0, 2: 3.5, 8: 0.0})
    assert pair is not None
    assert (pair.n, pair.mean) == (3, 2.0)
    assert pair.p == pytest.approx(0.0742, abs=1e-4)  # t = 2 sqrt(3), 2 degrees of freedom
    assert stats.paired({0: 1.0}, {1: 1.0}) is None
    assert stats.holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]


def test_rank_correlation_is_that_of_scipy_and_needs_enough_trials() -> None:
    found = stats.spearman([1, 2, 3, 4, 5], [1, 3, 2, 4, 5])
    assert found is not None
    assert found.rho == pytest.approx(0.9)
    assert found.low < 0.9 < found.high
    assert stats.spearman([1, 2, 3], [1, 2, 3]) is None
    assert stats.spearman([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    rows = stats.rank_correlations(made())
    assert rows[-1].averaged.rho > 0.95
    assert rows[-1].epoch == 23
