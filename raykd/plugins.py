"""What installed packages and files of the user's add to raykd: nets, methods, data sets, samplers.

A package offers them by the entry-point groups raykd.nets, raykd.methods, raykd.data and raykd.samplers. A
file (`--plugin FILE.py`) has dicts of these names, {name: object}. The objects are the same in both:

nets       number of classes -> raykd.models.Net
methods    a class derived from raykd.methods.Method
data       a class derived from raykd.data.DataSpec, whose field `name` is a Literal
samplers   a class derived from raykd.study.search.CustomSampler, whose field `kind` is a Literal

A study file names what is offered and never runs anything. Files travel as text: in a run's folder, and in
the job of each worker.
"""

import hashlib
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args

from raykd.errors import UserError, first_line
from raykd.paths import open_filesystem

GROUPS = ("nets", "methods", "data", "samplers")
Sources = Mapping[str, str]  # of plugin files: {file name: text}


class _Offer(NamedTuple):
    origin: str  # the file or package
    get: Callable[[], Any]  # returns the object; a package's is imported then


_sources: dict[str, str] = {}  # of the files in use
_offers: dict[str, dict[str, _Offer]] = {}  # of the files in use, by group and name


def read_files(places: Iterable[str | Path]) -> dict[str, str]:
    """Returns the texts of plugin files (paths or URIs) by file name. UserError when one cannot be read."""
    sources: dict[str, str] = {}
    for place in map(str, places):
        name = place.partition("?")[0].rpartition("/")[2]
        try:
            filesystem, path = open_filesystem(place, "--plugin ")
            with filesystem.open_input_stream(path) as stream:
                source = stream.read().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError([f"--plugin {place}: {first_line(error)}"]) from None
        if not name.endswith(".py") or sources.get(name, source) != source:
            reason = "two files of this name" if name in sources else "no file that ends in .py"
            raise UserError([f"--plugin {place}: {reason}"])
        sources[name] = source
    return sources


def get_sources() -> dict[str, str]:
    """Returns the texts of the plugin files in use."""
    return dict(_sources)


def use(sources: Sources) -> None:
    """Runs plugin files; what they offer replaces what other files offered in this process.

    Raises:
        UserError: One cannot be run, offers nothing, or two offer the same name.
    """
    offers: dict[str, dict[str, _Offer]] = {group: {} for group in GROUPS}
    for file, source in sources.items():
        module = _execute(file, source)
        if not any(hasattr(module, group) for group in GROUPS):
            raise UserError([f"plugin {file}: offers nothing: no dict named {' or '.join(GROUPS)}"])
        for group in GROUPS:
            values = getattr(module, group, {})
            if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
                raise UserError([f"plugin {file}: {group} should be a dict, {{name: object}}"])
            for name, value in values.items():
                _add(offers[group], group, name, _Offer(file, partial(_get_value, value)))
    _sources.clear()
    _sources.update(sources)
    _offers.clear()
    _offers.update(offers)


def list_names(group: str, builtin: Collection[str]) -> tuple[str, ...]:
    """Returns the names that plugins offer in a group. UserError when one is raykd's own."""
    offers = _list_offers(group)
    clashes = [name for name in offers if name in builtin]
    if clashes:
        raise UserError(
            [f"plugin {offers[n].origin}: {group}: '{n}' is the name of a built-in one" for n in clashes]
        )
    return tuple(offers)


def get_origin(group: str, name: str) -> str | None:
    """Returns the file or package that offers a name in a group; None where no plugin does."""
    offer = _list_offers(group).get(name)
    return offer and offer.origin


def load(group: str, name: str) -> tuple[Any, str]:
    """Returns what a plugin offers under a name, and the file or package it is of.

    Raises:
        UserError: It cannot be imported.
    """
    origin, get = _list_offers(group)[name]
    try:
        return get(), origin
    except (Exception, SystemExit) as error:
        raise UserError([_describe_import_error(f"{origin}: {group}: '{name}'", error)]) from None


def load_spec(group: str, name: str, base: Any, tag: str) -> Any:
    """Returns the settings' class that a plugin offers. UserError: it is none, or its `tag` is another."""
    offered, origin = load(group, name)
    is_class = isinstance(offered, type) and issubclass(offered, base)
    if not is_class or get_args(offered.model_fields[tag].annotation) != (name,):
        reason = f"a class derived from {base.__module__}.{base.__name__}, its `{tag}` Literal['{name}']"
        raise UserError([f"plugin {origin}: {group}: '{name}' should be {reason}"])
    return offered


def describe_installed() -> str:
    """Returns which packages offer what, in which version and from which files; "" where none does."""
    words = []
    for group in GROUPS:
        for entry in _find_entry_points(group, tuple(sys.path)):
            spec = find_spec(entry.module.partition(".")[0])
            origin = Path(spec.origin) if spec is not None and spec.origin is not None else None
            files = sorted(origin.parent.rglob("*.py")) if origin and origin.stem == "__init__" else [origin]
            digest = hashlib.sha256(b"".join(file.read_bytes() for file in files if file)).hexdigest()[:12]
            words.append(f"{group}/{entry.name} of {_get_origin(entry)} ({digest})")
    return ", ".join(words)


def _get_value(value: Any) -> Any:
    return value


def _list_offers(group: str) -> dict[str, _Offer]:
    offers: dict[str, _Offer] = {}
    for entry in _find_entry_points(group, tuple(sys.path)):
        _add(offers, group, entry.name, _Offer(_get_origin(entry), entry.load))
    for name, offer in _offers.get(group, {}).items():
        _add(offers, group, name, offer)
    return offers


def _add(offers: dict[str, _Offer], group: str, name: str, offer: _Offer) -> None:
    if name in offers:
        other = offers[name].origin
        raise UserError([f"plugin {offer.origin}: {group}: '{name}' is offered by {other}, too"])
    offers[name] = offer


@lru_cache(maxsize=8)
def _find_entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"raykd.{group}"))


def _get_origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.module


@lru_cache(maxsize=16)
def _execute(file: str, source: str) -> ModuleType:
    """A plugin file as a module, under a name of its own: another text is another module."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    module = ModuleType(f"raykd_plugin_{Path(file).stem}_{digest}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise UserError([_describe_import_error(file, error)]) from None
    return module


def _describe_import_error(origin: str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == origin]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    place = f"plugin {origin}, line {line}" if line else f"plugin {origin}"
    return f"{place}: cannot be imported: {type(error).__name__}: {first_line(error)}"
