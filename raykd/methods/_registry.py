"""The methods by name: a file of this folder is a method, and its name is its only registration.

Plugins (raykd/plugins.py) offer more: classes that must be what _base.Method asks for.
"""

import importlib
import inspect
import pkgutil
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from raykd import plugins
from raykd.batch import MethodContext
from raykd.errors import UserError, suggest_nearest
from raykd.methods._base import Method, MethodConfig, Need, Status


def names() -> tuple[str, ...]:
    """Returns the names of all methods, in alphabetical order."""
    builtin = _list_builtin()
    return tuple(sorted((*builtin, *plugins.list_names("methods", builtin))))


@lru_cache(maxsize=1)
def _list_builtin() -> tuple[str, ...]:
    files = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(file.name for file in files if not file.name.startswith("_"))


def get_class(name: str) -> type[Method]:
    """Returns the class of a method.

    Raises:
        UserError: There is none, with the nearest name; or a plugin's that cannot be imported, or lacks
            what a method has.
    """
    if name not in names():
        there_are = f"There are: {', '.join(names())}; or a plugin's (--plugin FILE.py)"
        raise UserError([f"no method '{name}'.{suggest_nearest(name, names())} {there_are}"])
    if name in _list_builtin():
        method: type[Method] = _import_builtin(name).Method
        return method
    offered, origin = plugins.load("methods", name)
    if lines := _find_faults(name, offered):
        raise UserError([f"plugin {origin}: method '{name}': {line}" for line in lines])
    return offered  # type: ignore[no-any-return]


def _import_builtin(name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{name}")


def _find_faults(name: str, offered: Any) -> list[str]:
    """What keeps a plugin's object from being a method, a line each."""
    if not (isinstance(offered, type) and issubclass(offered, Method)):
        return ["should be a class derived from raykd.methods.Method"]
    lines = []
    if inspect.isabstract(offered):
        lines.append("lacks forward(batch) -> {term: scalar}")
    needs, status = getattr(offered, "needs", None), getattr(offered, "status", None)
    if not isinstance(needs, frozenset) or not needs <= set(get_args(Need)):
        lines.append(f"`needs` should be a frozenset of {', '.join(get_args(Need))}")
    if status not in get_args(Status):
        lines.append(f"`status` should be {' or '.join(get_args(Status))}")
    if not isinstance(getattr(offered, "paper", None), str):
        lines.append("`paper` should be a text: title, venue, arXiv id")
    config = _find_config(offered)
    if not (isinstance(config, type) and issubclass(config, MethodConfig)) or config is MethodConfig:
        return [*lines, "`config: Config` should name its class, derived from raykd.methods.MethodConfig"]
    if (
        get_args(config.model_fields["name"].annotation) != (name,)
        or config.model_fields["name"].is_required()
    ):
        lines.append(f'the Config\'s `name` should be Literal["{name}"] = "{name}"')
    if required := [key for key, field in config.model_fields.items() if field.is_required()]:
        lines.append(f"the Config has no default for: {', '.join(required)}")
    return lines


def _find_config(method: type[Method]) -> Any:
    annotations = (inspect.get_annotations(base, eval_str=True) for base in method.__mro__)
    return next(found["config"] for found in annotations if "config" in found)


def get_text(name: str) -> str:
    """Returns what the file of a built-in method says of it, or the docstring of a plugin's class."""
    source = _import_builtin(name) if name in _list_builtin() else get_class(name)
    return inspect.getdoc(source) or ""


def get_config_class(name: str) -> type[MethodConfig]:
    """Returns the Config of a method. UserError with the nearest name when there is none."""
    is_builtin = name in _list_builtin()
    config_class: type[MethodConfig] = (
        _import_builtin(name).Config if is_builtin else _find_config(get_class(name))
    )
    return config_class


def get_default(name: str) -> MethodConfig:
    """Returns the paper's point of a method."""
    return get_config_class(name).model_validate({"name": name})


def make(name: str, context: MethodContext, config: MethodConfig | None = None) -> Method:
    """Returns a method that is built for two nets and a data set.

    Args:
        name: Of the method.
        context: The shapes of the two nets' outputs, and the labels of the training images.
        config: Its settings; None stands for the paper's point.

    Raises:
        UserError: There is no such method.
        ValueError: It cannot serve the two nets; one line that names both shapes.
    """
    return get_class(name)(config if config is not None else get_default(name), context)
