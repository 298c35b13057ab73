"""What the nets of a recipe begin with, in words, from its plain settings; loads no torch."""

from typing import Any

NO_TEACHER = "none"
PRETRAINED = "pretrained"  # for `weights`: those that the net's own library publishes


def describe_start(net: dict[str, Any]) -> str:
    """Returns what a net begins with: random, or whose weights (no path), and whether its head is new."""
    if net.get("weights") is None:
        return "random"
    name = str(net["weights"]).partition("?")[0].rpartition("/")[2]
    by_hash = f", SHA-256 {net['sha256'][:12]}" if net.get("sha256") else ""
    return f"{name}{by_hash}{', new head' if net.get('head') == 'new' else ''}"


def describe_starts(recipe: dict[str, Any]) -> dict[str, str]:
    """Returns {"student", "teacher" or "teachers/0": its start}; one that is not trained starts as it is."""
    several = recipe.get("teachers")
    nets = {role: recipe.get(role) for role in ("student", "teacher")}
    nets |= {f"teachers/{i}": net for i, net in enumerate(several if isinstance(several, list) else [])}
    return {role: describe_start(net) for role, net in nets.items() if isinstance(net, dict)}


def name_teachers(recipe: dict[str, Any]) -> str:
    """Returns the nets of the teachers; `NO_TEACHER` without one."""
    several = recipe.get("teachers")
    nets = [recipe.get("teacher"), *(several if isinstance(several, list) else [])]
    return " + ".join(str(net.get("net")) for net in nets if isinstance(net, dict)) or NO_TEACHER
