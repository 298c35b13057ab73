"""The methods, one file each. The file's name is the method's name and its only registration."""

import importlib
import pkgutil
from types import ModuleType

from raykd.batch import MethodContext
from raykd.errors import UserError, suggest_nearest
from raykd.methods._base import Method, MethodConfig, Weights

__all__ = ["Method", "MethodConfig", "Weights", "get_config_class", "get_module", "make", "names"]


def names() -> tuple[str, ...]:
    """All methods, in alphabetical order."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def get_module(name: str) -> ModuleType:
    """The file of a method. UserError with the nearest name when there is none."""
    if name not in names():
        raise UserError(
            [f"no method '{name}'.{suggest_nearest(name, names())} There are: {', '.join(names())}"]
        )
    return importlib.import_module(f"{__name__}.{name}")


def get_config_class(name: str) -> type[MethodConfig]:
    """The Config of a method."""
    config_class: type[MethodConfig] = get_module(name).Config
    return config_class


def make(name: str, context: MethodContext, config: MethodConfig | None = None) -> Method:
    """A method built for two nets and a data set; `config` defaults to the paper's point."""
    file = get_module(name)
    method: Method = file.Method(config if config is not None else file.Config(), context)
    return method
