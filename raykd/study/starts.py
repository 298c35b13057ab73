"""What the nets of a recipe begin with, in words, from its plain settings; loads no torch."""

from typing import Any

PRETRAINED = "pretrained"  # for `weights`: those that the net's own library publishes


def describe_start(net: dict[str, Any]) -> str:
    """Returns what a net begins with: random, or whose weights (no path), and whether its head is new."""
    if net.get("weights") is None:
        return "random"
    name = str(net["weights"]).partition("?")[0].rpartition("/")[2]
    by_hash = f", SHA-256 {net['sha256'][:12]}" if net.get("sha256") else ""
    return f"{name}{by_hash}{', new head' if net.get('head') == 'new' else ''}"


def describe_starts(recipe: dict[str, Any]) -> dict[str, str]:
    """Returns {"student" or "teacher": its start}; a teacher that is not trained starts as it teaches."""
    nets = {role: recipe.get(role) for role in ("student", "teacher")}
    return {role: describe_start(net) for role, net in nets.items() if isinstance(net, dict)}
