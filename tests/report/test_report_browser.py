"""The pages in a real browser. Chromium only opens files of this machine here; nothing is fetched."""

from dataclasses import replace
from pathlib import Path

import pytest
from support import fake_runs
from support.browser import CHROMIUM, open_page
from support.fake_report import make_run
from test_report import FIGURES

from raykd.report import write
from raykd.report.write import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path"),
]

EMPTY, NUMBERS = ("", "–"), {"trial", "held-out accuracy (%)", "minutes", "optimizer/lr", "method/projection"}


def test_a_study_of_200_trials_draws_every_figure_without_overlapping_labels(tmp_path: Path) -> None:
    page_state, console = open_page(
        write.write_page(make_run(200), tmp_path / "report"), tmp_path / "profile"
    )
    assert console == []
    assert set(page_state["figures"]) == FIGURES
    assert page_state["overlaps"] == []
    assert page_state["wide"] <= page_state["window"]
    for name, order, up, down in page_state["sorted"]:
        filled, empty = [k for k in up if k not in EMPTY], [k for k in up if k in EMPTY]
        assert up == filled + empty and sorted(up) == sorted(down), name
        assert order == "descending", name
        if name in NUMBERS:
            assert [float(k) for k in filled] == sorted(float(k) for k in filled), name
            assert [float(k) for k in down[: len(filled)]] == sorted(map(float, filled), reverse=True), name
    assert {name for name, *_ in page_state["sorted"]} >= NUMBERS


def test_eight_methods_on_a_narrow_screen_have_no_overlapping_labels(
    tmp_path: Path,
) -> None:
    methods = ["at", "crd", "dcd", "dkd", "kd", "pckd", "rkd", "wcord"]
    runs = [
        replace(make_run(30, seed=i), name=f"{name}-resnet8x4", method=name) for i, name in enumerate(methods)
    ]
    page_state, console = open_page(
        write.write_comparison(runs, tmp_path / "comparison"), tmp_path / "profile", width=500
    )
    assert console == []
    assert set(page_state["figures"]) == {"accuracies-1", "edf-1", "anytime-1"}
    assert page_state["overlaps"] == []
    assert page_state["wide"] <= page_state["window"]


def test_a_thousand_trials_stay_below_10_MB(tmp_path: Path) -> None:
    run_files = fake_runs.write_run(fake_runs.make_study("thousand", trials=40), tmp_path)
    fake_runs.multiply(run_files, 1000)
    page = Path(write_report([run_files.folder.uri]))
    assert page.stat().st_size < 10e6
    page_state, console = open_page(page, tmp_path / "profile")
    assert console == []
    assert set(page_state["figures"]) == FIGURES
    assert any(len(up) == 1000 for _, _, up, _ in page_state["sorted"])
