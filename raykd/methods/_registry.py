"""The methods by name: a file of this folder is a method, and its name is its only registration."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from raykd.batch import MethodContext
from raykd.errors import UserError, suggest_nearest
from raykd.methods._base import Method, MethodConfig


def names() -> tuple[str, ...]:
    """Returns the names of all methods, in alphabetical order."""
    files = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(sorted(file.name for file in files if not file.name.startswith("_")))


def get_module(name: str) -> ModuleType:
    """Returns the file of a method, imported. UserError with the nearest name when there is none."""
    if name not in names():
        raise UserError(
            [f"no method '{name}'.{suggest_nearest(name, names())} There are: {', '.join(names())}"]
        )
    return importlib.import_module(f"{__package__}.{name}")


def get_config_class(name: str) -> type[MethodConfig]:
    """Returns the Config of a method. UserError with the nearest name when there is none."""
    config_class: type[MethodConfig] = get_module(name).Config
    return config_class


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
    file = get_module(name)
    method: Method = file.Method(config if config is not None else file.Config(), context)
    return method
