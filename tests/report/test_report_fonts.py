"""Characters that matplotlib's own font lacks, in the names that a figure shows. Warnings are errors here."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib import rc_context
from support.fake_report import make_run

from raykd.report.figures import fonts, style
from raykd.report.figures.embeddings import plot_embeddings
from raykd.report.figures.timeline import plot_timeline
from raykd.report.rows.types import RunData

COMBINING_CIRCLE = "\u20dd"  # in STIXGeneral, which matplotlib brings, and not in DejaVu Sans


SetFallback = Callable[..., None]


@pytest.fixture
def set_fallback(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetFallback]:
    """Makes these the fonts that may stand in for DejaVu Sans; without names there are none."""

    def set_fonts(*names: str) -> None:
        monkeypatch.setattr(fonts, "FALLBACK_FONTS", names)
        monkeypatch.setitem(style.RC_PARAMS, "font.family", [*fonts.list_fonts(), "sans-serif"])
        fonts.drawable_characters.cache_clear()

    yield set_fonts
    fonts.drawable_characters.cache_clear()


def make_named_run(name: str) -> RunData:
    """A run whose class, and whose devices, are called so."""
    run = make_run(6)
    point = (0.0, 1.0, name)
    analyses = [
        replace(row.analysis, embedding={"student": (point,), "teacher": (point,)})
        for row in run.confirmations[:1]
        if row.analysis is not None
    ]
    return replace(
        run,
        trials=[replace(trial, device=name) for trial in run.trials],
        confirmations=[replace(run.confirmations[0], analysis=analyses[0])],
    )


def save(name: str, folder: Path) -> list[str]:
    run = make_named_run(name)
    with rc_context(style.RC_PARAMS):
        figures = [plot_embeddings(run), plot_timeline(run)]
    return [
        style.save_figure(figure, f"figure{i}", "a figure", folder)
        for i, figure in enumerate(figures)
        if not isinstance(figure, str)
    ]


def test_a_class_in_chinese_is_in_the_page_whatever_fonts_there_are(
    set_fallback: SetFallback, tmp_path: Path
) -> None:
    set_fallback()
    svgs = save("猫 & 犬", tmp_path)
    assert len(svgs) == 2 and all("猫 &amp; 犬" in svg for svg in svgs)
    assert "猫 &amp; 犬" in (tmp_path / "figure0.svg").read_text(encoding="utf-8")
    assert fonts.escape_missing("猫 & 犬") == r"\u732b & \u72ac"  # so in the PNG


def test_an_installed_font_that_has_the_characters_is_used(set_fallback: SetFallback, tmp_path: Path) -> None:
    set_fallback("No Such Font", "STIXGeneral")
    assert fonts.list_fonts() == ["DejaVu Sans", "STIXGeneral"]
    assert fonts.escape_missing(COMBINING_CIRCLE) == COMBINING_CIRCLE
    assert all(COMBINING_CIRCLE in svg and "STIXGeneral" in svg for svg in save(COMBINING_CIRCLE, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["\x00\x1b", "\ud800", "\U0001f9ff", "\\u003cscript>", "\\uffff\\Uffffffff", "กขค"]
)
def test_no_name_breaks_a_figure_or_becomes_markup(
    set_fallback: SetFallback, tmp_path: Path, name: str
) -> None:
    set_fallback()
    for svg in save(name, tmp_path):
        assert "<script" not in svg
        svg.encode("utf-8")
