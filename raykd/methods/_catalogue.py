"""What is known of the methods: source, status, needs, fields and ranges."""

import inspect
import json
from importlib import resources
from typing import Any

from raykd import methods
from raykd.spec import collect_dimensions, get_value


def list_methods() -> list[dict[str, Any]]:
    """One line a method."""
    return [
        {k: v for k, v in describe(name).items() if k not in ("text", "fields", "published")}
        for name in methods.names()
    ]


def describe(name: str) -> dict[str, Any]:
    """A method in full. ValueError with the nearest name when there is none."""
    file = methods.get_module(name)
    space = collect_dimensions(file.Config, "method/")
    defaults = file.Config().model_dump(mode="json")
    return {
        "name": name,
        "status": file.Method.status,
        "needs": sorted(file.Method.needs),
        "num_ranges": len(space),
        "paper": file.Method.paper,
        "text": inspect.getdoc(file) or "",
        "fields": [
            {
                "path": path,
                "range": str(dimension),
                "paper": get_value(defaults, path.removeprefix("method/")),
                "conditions": " and ".join(f"{p} = {v}" for p, v in dimension.conditions),
            }
            for path, dimension in space.items()
        ],
        "published": [row for row in read_published() if row["method"] == name],
    }


def read_published() -> list[dict[str, Any]]:
    """What papers and official codes print: data, system, method, source, top1 {pair: [values, %]}."""
    text = resources.files("raykd.methods").joinpath("published.json").read_text()
    rows: list[dict[str, Any]] = json.loads(text)
    return rows
