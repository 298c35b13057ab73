"""What `raykd doctor` finds, a line each, and how a node's answer is judged."""

from dataclasses import dataclass, field
from typing import Any, Literal

from raykd.doctor import node

SLOW = 50.0  # MB/s; below it, checkpoints and images wait noticeably
MEMORY = 2 * 2**30  # bytes; a worker takes 1 GiB and more
DISK = 5 * 2**30

Level = Literal["good", "poor", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line. `bad`: a study cannot run; `poor`: it can, but somebody should know."""

    node: str  # its name, or "cluster"
    what: str
    level: Level
    told: str
    mend: str = ""  # in words, for all that is not good


@dataclass
class Health:
    """What was found, in the order in which it was asked."""

    address: str
    findings: list[Finding] = field(default_factory=list)

    def can_run(self) -> bool:
        return all(finding.level != "bad" for finding in self.findings)

    def good(self, node: str, what: str, told: str) -> None:
        self.findings.append(Finding(node, what, "good", told))

    def poor(self, node: str, what: str, told: str, mend: str) -> None:
        self.findings.append(Finding(node, what, "poor", told, mend))

    def bad(self, node: str, what: str, told: str, mend: str) -> None:
        self.findings.append(Finding(node, what, "bad", told, mend))


def of_node(health: Health, name: str, facts: dict[str, Any]) -> None:
    """One node's answer, line by line."""
    _versions(health, name, facts["versions"])
    health.good(name, "devices", facts["devices"])
    free, there = facts["memory"]
    told = f"{free / 2**30:.1f} of {there / 2**30:.1f} GiB free"
    if free < MEMORY:
        health.poor(name, "memory", told, "a worker takes 1 GiB and more: end other work there")
    else:
        health.good(name, "memory", told)
    for place, size in facts["disk"].items():
        told = f"{size / 2**30:.1f} GiB free at {place}"
        if size < DISK:
            health.poor(name, "disk", told, "free some: Ray spills to it, runs and caches lie on it")
        else:
            health.good(name, "disk", told)
    for what, right, told, mend in facts["checks"]:
        health.good(name, what, told) if right else health.bad(name, what, told, mend)
    if facts["storage_speed"] is not None:
        writes, reads = facts["storage_speed"]
        of_speed(health, name, "storage speed", f"writes {writes:.0f} MB/s, reads {reads:.0f} MB/s", writes)


def _versions(health: Health, name: str, theirs: dict[str, str]) -> None:
    ours = node.versions()
    other = [f"{package} {theirs[package]}, here {mine}" for package, mine in ours.items()
             if theirs[package] != mine]  # fmt: skip
    if other:
        health.bad(
            name, "versions", "; ".join(other),
            "install the same requirements.lock on every node; Ray refuses or misreads other versions",
        )  # fmt: skip
    else:
        told = ", ".join(f"{package} {theirs[package]}" for package in ("python", "raykd", "torch", "ray"))
        health.good(name, "versions", f"{told}, and all others, as here")


def of_speed(health: Health, name: str, what: str, told: str, rate: float) -> None:
    if rate < SLOW:
        health.poor(
            name, what, told, f"below {SLOW:g} MB/s trials wait: take a nearer storage, a faster network"
        )
    else:
        health.good(name, what, told)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
