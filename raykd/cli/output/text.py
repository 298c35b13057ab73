"""Text as a reader takes it: a terminal of its own width, or a program that cuts fields at tabs."""

import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

MIN_PROSE = 20  # columns that a cell of prose is given at least, where a table is one
GAP = "  "

# it heeds NO_COLOR, TERM=dumb and COLUMNS; what is no terminal, or was closed, gets whole lines
console = Console(highlight=False, markup=False, soft_wrap=True)


def get_width() -> int | None:
    """Returns the columns of the terminal; None where the output is none."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return console.width if is_terminal else None


def print_table(rows: Sequence[dict[str, Any]], prose: Sequence[str] = (), title: str = "") -> None:
    """Prints rows of plain values, as `format_table` lays them out."""
    if title:
        print_lines([title])
    print("\n".join(format_table(rows, get_width(), prose)), flush=True)


def print_lines(lines: Iterable[str], indent: int = 0) -> None:
    """Prints lines; on a terminal a longer one goes on below itself, `indent` columns in."""
    for line in lines:
        print("\n".join(wrap_line(line, get_width(), indent)), flush=True)


def wrap_line(line: str, width: int | None, indent: int) -> list[str]:
    """Returns a line in pieces of at most `width` columns (None: whole). No word is broken."""
    if width is None or len(line) <= width:
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        replace_whitespace=False, drop_whitespace=True,
    )  # fmt: skip


def format_table(rows: Sequence[dict[str, Any]], width: int | None, prose: Sequence[str] = ()) -> list[str]:
    """Returns the lines of a table, in which no word is broken and nothing is cut off.

    Args:
        rows: Each with the same names; None is shown as "-".
        width: Of the terminal. None: fields with a tab between them, a line a row, for grep and cut. Where
            the columns do not fit beside each other, each row is a block of its own.
        prose: The names of columns whose cells may go on below themselves, between words.
    """
    names = list(rows[0])
    cells = [[_format_cell(row[name]) for name in names] for row in rows]
    if width is None:
        return ["\t".join(line) for line in [names, *cells]]
    columns = dict(zip(names, zip(names, *cells, strict=True), strict=True))
    sizes = {name: max(map(len, column)) for name, column in columns.items()}
    least = {name: _find_least_size(columns[name]) if name in prose else sizes[name] for name in names}
    room = width - sum(least.values()) - len(GAP) * (len(names) - 1)
    if room < 0:
        return _format_blocks(names, cells, width)
    for name in prose:  # what is left goes to prose
        sizes[name] = min(sizes[name], least[name] + max(room, 0))
        room -= sizes[name] - least[name]
    numeric = [all(_is_number(row[name]) for row in rows) for name in names]
    return [line for row in [names, *cells] for line in _format_row(row, list(sizes.values()), numeric)]


def _find_least_size(column: Sequence[str]) -> int:
    """The columns that prose takes at least: its longest word, and some where it is longer."""
    longest_word = max(len(word) for cell in column for word in cell.split() or [""])
    return max(longest_word, min(MIN_PROSE, max(map(len, column))))


def _format_row(row: list[str], sizes: list[int], numeric: list[bool]) -> list[str]:
    """A row's lines, each cell in its column."""
    parts = [wrap_line(cell, size, 0) or [""] for cell, size in zip(row, sizes, strict=True)]
    lines = []
    for number in range(max(map(len, parts))):
        words = (part[number] if number < len(part) else "" for part in parts)
        lines.append(
            GAP.join(
                word.rjust(size) if right else word.ljust(size)
                for word, size, right in zip(words, sizes, numeric, strict=True)
            ).rstrip()
        )
    return lines


def _format_blocks(names: list[str], cells: list[list[str]], width: int) -> list[str]:
    """Each row as a block: its first cell, and below it what the others are."""
    size = max(map(len, names[1:]), default=0)
    lines = []
    for first, *others in cells:
        lines += wrap_line(first, width, 2)
        for name, cell in zip(names[1:], others, strict=True):
            if cell:
                lines += wrap_line(f"{GAP}{name:<{size}}{GAP}{cell}", width, size + 4)
    return lines


def _format_cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _is_number(value: Any) -> bool:
    text = str(value)
    return value is None or text[:1].isdigit() or text == "-"
