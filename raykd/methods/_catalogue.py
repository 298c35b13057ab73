"""What there is to say of the methods: source, status, needs, fields and ranges."""

import inspect
import json
from importlib import resources
from typing import Any

from raykd import methods
from raykd.spec import declared


def catalogue() -> list[dict[str, Any]]:
    """One line a method."""
    return [
        {k: v for k, v in entry(name).items() if k not in ("text", "fields", "published")}
        for name in methods.names()
    ]


def entry(name: str) -> dict[str, Any]:
    """A method in full. ValueError with the nearest name when there is none."""
    file = methods.module(name)
    space = declared(file.Config, "method/")
    defaults = file.Config().model_dump(mode="json")
    return {
        "name": name,
        "status": file.Method.status,
        "needs": sorted(file.Method.needs),
        "searched": len(space),
        "paper": file.Method.paper,
        "text": inspect.getdoc(file) or "",
        "fields": [
            {
                "path": path,
                "range": str(dimension),
                "paper": _value(defaults, path.split("/")[1:]),
                "when": " and ".join(f"{p} = {v}" for p, v in dimension.when),
            }
            for path, dimension in space.items()
        ],
        "published": [row for row in published() if row["method"] == name],
    }


def published() -> list[dict[str, Any]]:
    """What papers and official codes print: data, system, method, source, top1 {pair: [values, %]}."""
    text = resources.files("raykd.methods").joinpath("published.json").read_text()
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def _value(node: Any, parts: list[str]) -> Any:
    for part in parts:
        node = node.get(part) if isinstance(node, dict) else None
    return node
