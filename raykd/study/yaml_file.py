"""Settings files: YAML read strictly, and path=value put over them."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from raykd.errors import BadInput


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML map; nothing in it is executed. BadInput names a mistake's line, duplicate keys included."""
    if not path.is_file():
        raise BadInput([f"{path}: no such file"])
    try:
        plain = YAML(typ="safe", pure=True).load(path)
    except MarkedYAMLError as error:
        at = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = str(error.problem or error.context or "not YAML").splitlines()[0]
        raise BadInput([f"{path}:{at} {problem}"]) from None
    except UnicodeDecodeError:
        raise BadInput([f"{path}: not a text file"]) from None
    if not isinstance(plain, dict):
        raise BadInput([f"{path}: should hold a map of settings"])
    return plain


def override(plain: dict[str, Any], overrides: tuple[str, ...]) -> None:
    """Put path=value into plain settings; a value is read as YAML. Unknown paths are told by the check that
    follows.
    """
    for item in overrides:
        path, equals, text = item.partition("=")
        if not equals or not path:
            raise BadInput([f"--set {item}: should be path=value"])
        node: Any = plain
        *parents, last = path.split("/")
        if parents and parents[0] == "space":
            parents, last = ["space"], path.removeprefix("space/")
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[last] = YAML(typ="safe", pure=True).load(text)
