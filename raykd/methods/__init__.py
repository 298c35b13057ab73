"""The methods, one file each. The file's name is the method's name and its only registration."""

from raykd.methods._base import Method, MethodConfig, Weights
from raykd.methods._registry import get_config_class, get_module, make, names

__all__ = ["Method", "MethodConfig", "Weights", "get_config_class", "get_module", "make", "names"]
