"""What the verbs print, on terminals of all widths and in pipes."""

import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from raykd.cli.output.text import format_table, wrap_line

ROWS = [
    {"field": "method/weights/consistency", "range": "{0.0, 0.1, 0.25}", "value": 0.5, "only when": ""},
    {"field": "optimizer/lr", "range": "0.02 .. 0.2 log", "value": None, "only when": "optimizer/name = sgd"},
]


@pytest.mark.parametrize("width", [10, 40, 60, 80, 200])
def test_no_word_of_a_table_is_broken_at_any_width(width: int) -> None:
    lines = format_table(ROWS, width, prose=("range", "only when"))
    words = " ".join(lines).split()
    for row in ROWS:
        assert all(word in words for value in row.values() if value for word in str(value).split())
    longest = max(len(word) for word in words)
    assert all(len(line) <= max(width, longest + 13) for line in lines)
    assert (len(lines) == 3) == (width >= 80)
    assert not any(line != line.rstrip() for line in lines)


def test_a_pipe_gets_a_line_a_row_with_tabs_between() -> None:
    assert [line.split("\t") for line in format_table(ROWS, None, prose=("range",))] == [
        ["field", "range", "value", "only when"],
        ["method/weights/consistency", "{0.0, 0.1, 0.25}", "0.5", ""],
        ["optimizer/lr", "0.02 .. 0.2 log", "-", "optimizer/name = sgd"],
    ]


def test_a_long_line_goes_on_below_itself() -> None:
    line = "best      61.00 %  method/weights/contrast=1  optimizer/lr=0.05"
    assert wrap_line(line, None, 10) == [line]
    lines = wrap_line(line, 40, 10)
    assert [len(part) <= 40 for part in lines] == [True] * len(lines) and len(lines) > 1
    assert " ".join(part.strip() for part in lines).split() == line.split()
    assert all(part.startswith(" " * 10) for part in lines[1:])


def show_on_terminal(*words: str, **variables: str) -> str:
    """What a verb writes on a terminal of its own."""
    reader, writer = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm-256color"} | variables
    command = [sys.executable, "-m", "raykd", *words]
    with subprocess.Popen(command, env=environment, stdout=writer, stderr=writer, stdin=writer) as process:
        os.close(writer)
        parts = []
        while True:
            try:
                part = os.read(reader, 65536)
            except OSError:  # of a terminal that was closed
                break
            if not part:
                break
            parts.append(part)
        os.close(reader)
        assert process.wait() == 0
    return b"".join(parts).decode()


@pytest.mark.slow
def test_a_terminal_of_80_columns_a_dumb_one_and_one_without_colours(verb: Any) -> None:
    shown = show_on_terminal("methods", "dcd")
    assert "\nmethod/weights/consistency  {0.0," in shown.replace("\r", "")
    assert max(map(len, shown.splitlines())) <= 80
    assert "method/weights/consistency\t{0.0," in verb("methods", "dcd").stdout
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in show_on_terminal("data", "list", **variables)
