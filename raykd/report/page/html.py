"""The pages' templates (Jinja2, every value escaped), the tables they show, and how values are written."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raykd.report.figures.style import COLOURS
from raykd.spec import Scalar

EMPTY = "–"
LIGHT_COLOURS = {
    "page": "#f6f8fa", "soft": "#57606a", "link": "#0062a3", "hover": "#f0f4f8", "warn": "#a34700",
}  # fmt: skip
DARK_COLOURS = {
    "page": "#0d1117", "soft": "#9aa4af", "link": "#6cb6ff", "hover": "#1d242d", "warn": "#f58a42",
}  # fmt: skip


@dataclass(frozen=True)
class ColumnHead:
    """A column's heading; numbers are set to the right, long texts may wrap."""

    name: str
    css_class: str = ""  # "", "number" or "long"
    decimals: int | None = None  # of its numbers; None: four digits
    is_code: bool = False  # its cells are set as code


@dataclass(frozen=True)
class Table:
    """A table and the words around it. Without rows only `missing` is shown, or the lead."""

    label: str = ""  # for screen readers
    heads: Sequence[ColumnHead] = ()
    rows: Sequence[Sequence[Scalar | None]] = ()
    title: str = ""  # a heading above
    lead: str = ""  # a sentence above
    note: str = ""  # a sentence below
    missing: str = ""  # why there are no rows
    is_sortable: bool = False


def number_heads(*names: str, decimals: int | None = None) -> list[ColumnHead]:
    """Returns the headings of columns of numbers."""
    return [ColumnHead(name, "number", decimals) for name in names]


def format_value(value: Any, decimals: int | None = None) -> Any:
    """Returns a plain value as a page writes it; text and markup as they are."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return EMPTY
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
    return value


def sort_key(value: Scalar | None) -> str | None:
    """Returns what a table sorts a cell by; None: by its text."""
    if isinstance(value, float) and isfinite(value):
        return repr(value)
    return "" if format_value(value) in (EMPTY, "") else None


def format_points(value: float | None, sign: bool = False) -> str:
    """Returns an accuracy in %, or a difference of two in points, with two decimals."""
    if value is None or not isfinite(value):
        return EMPTY
    return f"{value:+.2f}".replace("-", "−") if sign else f"{value:.2f}"


def format_interval(mean: float, half_width: float | None, sign: bool = False) -> str:
    """Returns a mean with half the width of its interval, where that is known."""
    return format_points(mean, sign) + (f" ± {half_width:.2f}" if half_width is not None else "")


def format_p(p: float | None) -> str:
    """Returns a p value with three decimals."""
    return EMPTY if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_hours(value: float | None) -> str:
    """Returns hours, or a part of one, with three digits."""
    if value is None:
        return EMPTY
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@lru_cache
def _load_templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
        undefined=StrictUndefined, finalize=format_value, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "decimals": format_value,
        "sort_key": sort_key,
        "points": format_points,
        "interval": format_interval,
        "p": format_p,
        "hours": format_hours,
    }
    environment.globals |= {
        "light": {name: colour for colour, (name, _) in COLOURS.items()} | LIGHT_COLOURS,
        "dark": dict(COLOURS.values()) | DARK_COLOURS,
    }
    return environment


def write_page(template: str, context: dict[str, Any], path: Path) -> None:
    """Writes a template, filled in, as a file."""
    path.write_text(_load_templates().get_template(template).render(context), encoding="utf-8")


def describe_files(tables: dict[str, pa.Table]) -> list[tuple[str, int, Table]]:
    """Returns (name, number of rows, its columns) of each table beside the page."""
    heads = [ColumnHead("column", is_code=True), *map(ColumnHead, ("type", "unit", "what it says"))]
    return [
        (
            name,
            table.num_rows,
            Table(
                f"Columns of {name}",
                heads,
                [
                    (f.name, str(f.type), f.metadata[b"unit"].decode(), f.metadata[b"description"].decode())
                    for f in table.schema
                ],
            ),
        )
        for name, table in tables.items()
    ]
