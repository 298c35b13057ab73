"""The methods, one file each. The file's name is the method's name and its only registration."""

from raykd.methods._base import Method, MethodConfig, Weights
from raykd.methods._registry import get_class, get_config_class, get_default, get_text, make, names

__all__ = [
    "Method", "MethodConfig", "Weights", "get_class", "get_config_class", "get_default", "get_text", "make",
    "names",
]  # fmt: skip
