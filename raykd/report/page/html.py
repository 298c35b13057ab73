"""Pieces of HTML. Every text passes through `text`, so that nothing from a run can become markup."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from pathlib import Path

from raykd.report.figures.style import COLOURS
from raykd.spec import Scalar

EMPTY = "–"
LIGHT = {"page": "#f6f8fa", "soft": "#57606a", "link": "#0062a3", "hover": "#f0f4f8", "warn": "#a34700"}
DARK = {"page": "#0d1117", "soft": "#9aa4af", "link": "#6cb6ff", "hover": "#1d242d", "warn": "#f58a42"}


@dataclass(frozen=True)
class Head:
    """A column's heading; numbers are set to the right, long texts may wrap."""

    name: str
    kind: str = ""  # "", "number" or "long"
    decimals: int | None = None  # of its numbers; None: four digits


def text(value: Scalar | None) -> str:
    """Any plain value as escaped text."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return EMPTY
    if isinstance(value, bool):
        return str(value).lower()
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value), quote=True)


def code(value: Scalar | None) -> str:
    return f"<code>{text(value)}</code>"


def points(value: float | None, sign: bool = False) -> str:
    """An accuracy, or a difference of two, with two decimals."""
    if value is None or not isfinite(value):
        return EMPTY
    return f"{value:+.2f}".replace("-", "−") if sign else f"{value:.2f}"


def interval(mean: float, half: float | None, sign: bool = False) -> str:
    return points(mean, sign) + (f" ± {half:.2f}" if half is not None else "")


def hours(value: float) -> str:
    """Hours, or a part of one, with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def paragraph(inner: str, style: str = "") -> str:
    return f'<p class="{style}">{inner}</p>' if style else f"<p>{inner}</p>"


def section(key: str, title: str, inner: str) -> str:
    return f'<section aria-labelledby="{key}">\n<h2 id="{key}">{title}</h2>\n{inner}</section>\n'


def pair(left: str, right: str) -> str:
    """Two columns on a wide screen, one on a phone."""
    return f'<div class="pair"><div>{left}</div><div>{right}</div></div>\n'


def tile(name: str, value: str, note: str = "") -> str:
    return (
        f'<div class="tile"><div class="name">{name}</div><div class="value">{value}</div>'
        f'<div class="note">{note}</div></div>'
    )


def drawing(svg: str, name: str, caption: str, wide: bool) -> str:
    files = f'<a href="figures/{name}.png">PNG</a> · <a href="figures/{name}.svg">SVG</a>'
    size = "wide" if wide else "half"
    return (
        f'<figure class="{size}" data-figure="{name}"><div class="card" tabindex="0">{svg}</div>'
        f"<figcaption>{caption} {files}</figcaption></figure>"
    )


def table(label: str, heads: Sequence[Head], rows: Sequence[Sequence[str]]) -> str:
    """A plain table; the cells are HTML already."""
    top = "".join(f'<th scope="col"{_kind(head)}>{text(head.name)}</th>' for head in heads)
    return _table(label, "", top, [_cells(heads, row) for row in rows])


def sortable(label: str, heads: Sequence[Head], rows: Sequence[Sequence[Scalar | None]]) -> str:
    """A table of plain values that sorts by any column, by mouse or keyboard."""
    top = "".join(
        f'<th scope="col"{_kind(head)} aria-sort="none"><button type="button">{text(head.name)}</button></th>'
        for head in heads
    )
    lines = []
    for row in rows:
        cells = []
        for head, value in zip(heads, row, strict=True):
            exact = isinstance(value, float) and isfinite(value)
            shown = f"{value:.{head.decimals}f}" if exact and head.decimals is not None else text(value)
            key = f' data-v="{value!r}"' if exact else (' data-v=""' if shown in (EMPTY, "") else "")
            cells.append(f"<td{_kind(head)}{key}>{shown}</td>")
        lines.append("".join(cells))
    return _table(label, ' class="sortable"', top, lines, '<span class="unseen" aria-live="polite"></span>')


def _table(label: str, style: str, top: str, lines: Sequence[str], after: str = "") -> str:
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(label)}"><table{style}>'
        f"<thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table>{after}</div>"
    )


def _cells(heads: Sequence[Head], row: Sequence[str]) -> str:
    return "".join(f"<td{_kind(head)}>{cell}</td>" for head, cell in zip(heads, row, strict=True))


def _kind(head: Head) -> str:
    return f' class="{head.kind}"' if head.kind else ""


def page(title: str, body: str) -> str:
    """The whole document: styles, colours of light and dark, and the script that sorts."""
    folder = Path(__file__).parent
    light = _variables({name: colour for colour, (name, _) in COLOURS.items()} | LIGHT)
    dark = _variables(dict(COLOURS.values()) | DARK)
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = (folder / "page.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>\n:root {{ {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{style}</style>\n</head>\n"
        f"<body>\n{body}<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
