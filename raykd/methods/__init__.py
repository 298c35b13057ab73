"""The methods, one file each. The file's name is the method's name and its only registration."""

import importlib
import pkgutil
from types import ModuleType

from raykd.batch import Setting
from raykd.errors import BadInput, nearest
from raykd.methods._base import Method, MethodConfig


def names() -> tuple[str, ...]:
    """All methods, in alphabetical order."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def module(name: str) -> ModuleType:
    """The file of a method. BadInput with the nearest name when there is none."""
    if name not in names():
        raise BadInput([f"no method '{name}'.{nearest(name, names())} There are: {', '.join(names())}"])
    return importlib.import_module(f"{__name__}.{name}")


def config(name: str) -> type[MethodConfig]:
    """The Config of a method."""
    found: type[MethodConfig] = module(name).Config
    return found


def make(name: str, setting: Setting, config: MethodConfig | None = None) -> Method:
    """A method built for two nets and a data set; `config` defaults to the paper's point."""
    file = module(name)
    made: Method = file.Method(config if config is not None else file.Config(), setting)
    return made
