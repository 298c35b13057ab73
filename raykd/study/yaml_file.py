"""Settings files: YAML read strictly and within bounds, and path=value put over them."""

import codecs
import datetime
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from raykd.errors import UserError, first_line, shorten

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
TOO_DEEP = f"more than {MAX_DEPTH} lists and maps in one another"
MAX_ALIASES = 10  # each can repeat what all before it have repeated
MAX_VALUES = 20_000  # with what aliases repeat
MAX_INTEGER = 2**63 - 1
MAX_NUMBER = 100  # characters of a number; Python takes an integer of thousands for a mistake

MARKS = {  # UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML map of plain values; nothing in it is executed. A pipe is read once.

    Raises:
        UserError: It is missing, no text, larger or deeper than any study, or no such map; with the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError([f"{path}: no such file"]) from None
    except OSError as error:
        raise UserError([f"{path}: cannot be read ({error.strerror})"]) from None
    return parse_settings(content, str(path))


def parse_settings(content: bytes, where: str) -> dict[str, Any]:
    """Returns the YAML map of plain values that a file's content holds. UserError as for `read_yaml`."""
    if len(content) > MAX_BYTES:
        raise UserError([f"{where}: more than {MAX_BYTES // 1024} KiB, which no settings file has"])
    plain = parse_yaml(_decode(content, where), where)
    if not isinstance(plain, dict):
        raise UserError([f"{where}: should hold a map of settings"])
    return plain


def parse_yaml(text: str, where: str) -> Any:
    """Returns the plain value that a YAML text holds: dicts with words for keys, lists, words, numbers.

    Raises:
        UserError: It is not YAML, exceeds a bound of this file, or holds anything else.
    """
    try:
        _check_events(text, where)
        plain = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        at = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        problem = str(error.problem or error.context or "not YAML").splitlines()[0]
        raise UserError([f"{where}:{at} {shorten(problem)}"]) from None
    except YAMLError as error:  # a character that YAML forbids
        raise UserError([f"{where}: not YAML ({first_line(error)})"]) from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:  # of a value behind a tag
        if isinstance(error, UserError):
            raise
        raise UserError([f"{where}: holds a value that cannot be read ({first_line(error)})"]) from None
    return _take_plain(plain, where, "", 0, [0])


def override(plain: dict[str, Any], overrides: tuple[str, ...]) -> None:
    """Puts path=value into plain settings; a value is read as YAML.

    Unknown paths are found by the check that follows. UserError when one is not path=value.
    """
    for item in overrides:
        path, equals, text = item.partition("=")
        if not equals or not path:
            raise UserError([f"--set {shorten(item)}: should be path=value"])
        node: Any = plain
        *parents, last = path.split("/")
        if "space" in parents:  # its keys are paths
            place = parents.index("space") + 1
            parents, last = parents[:place], "/".join([*parents[place:], last])
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[last] = parse_yaml(text, f"--set {shorten(item)}")


def _decode(content: bytes, where: str) -> str:
    """The text, by its byte-order mark if it has one, else UTF-8."""
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError([f"{where}: line {line}: not {encoding.upper()}; save it as UTF-8"]) from None
    if "\0" in text:
        raise UserError([f"{where}: no text, or UTF-16 without its mark; save it as UTF-8"])
    return text


def _check_events(text: str, where: str) -> None:
    """UserError when the text nests, repeats or counts more than settings do; nothing is built meanwhile."""
    for number, line in enumerate(text.splitlines(), start=1):  # YAML's scanner looks ahead as far as a line
        steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", line))
        if max(accumulate(steps), default=0) > MAX_DEPTH:
            raise UserError([f"{where}: line {number}: {TOO_DEEP}"])
    depth = num_aliases = num_values = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        num_aliases += isinstance(event, AliasEvent)
        num_values += isinstance(event, ScalarEvent)
        place = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise UserError([f"{where}: line {place}: {TOO_DEEP}"])
        if num_aliases > MAX_ALIASES:
            raise UserError([f"{where}: line {place}: more than {MAX_ALIASES} aliases (*name)"])
        if num_values > MAX_VALUES:
            raise UserError([f"{where}: line {place}: more than {MAX_VALUES:,} values"])
        if isinstance(event, ScalarEvent) and len(event.value) > MAX_NUMBER and _is_digits(event.value):
            raise UserError([f"{where}: line {place}: a number of more than {MAX_NUMBER} digits"])


def _is_digits(text: str) -> bool:
    return text.lstrip("+-").replace("_", "").isdigit()


def _take_plain(value: Any, where: str, path: str, depth: int, num_values: list[int]) -> Any:
    """The value, dates as text. UserError when it holds what is not plain; aliases may go in circles."""
    num_values[0] += 1
    if depth > MAX_DEPTH or num_values[0] > MAX_VALUES:
        raise UserError([f"{where}: its aliases repeat too much, or go in circles"])
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not key.isprintable():
                raise UserError([f"{where}: {path}: a key should be a word, not {shorten(repr(key))}"])
        return {
            key: _take_plain(child, where, f"{path}/{shorten(key)}".strip("/"), depth + 1, num_values)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [_take_plain(child, where, path, depth + 1, num_values) for child in value]
    if isinstance(value, datetime.date):
        return str(value)
    if isinstance(value, str) and not value.isprintable():
        raise UserError([f"{where}: {path} = {shorten(repr(value))}: holds control characters"])
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise UserError([f"{where}: {path}: an integer of more than 64 bits"])
    if value is not None and not isinstance(value, str | int | float):
        raise UserError([f"{where}: {path}: a {type(value).__name__} is no setting"])
    return value
