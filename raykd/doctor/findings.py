"""What `raykd doctor` finds, a line each, and how a node's facts are judged."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from raykd.doctor import node
from raykd.driver import mps
from raykd.study.study import Study

SLOW_MB_PER_S = 50.0  # MB/s; below it, checkpoints and images wait noticeably
MIN_FREE_MEMORY = 2 * 2**30  # bytes; a worker takes 1 GiB and more
MIN_FREE_DISK = 5 * 2**30

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line. `error`: a study cannot run; `warning`: it can, but somebody should know."""

    node: str  # its name, or "cluster"
    check: str  # what was checked
    level: Level
    message: str
    fix: str = ""  # in words, for all that is not ok


@dataclass
class Health:
    """All findings, in the order of the checks."""

    address: str
    findings: list[Finding] = field(default_factory=list)

    def can_run(self) -> bool:
        """Returns whether nothing keeps a study from running."""
        return all(finding.level != "error" for finding in self.findings)

    def add_ok(self, node: str, check: str, message: str) -> None:
        """Adds that a check passed."""
        self.findings.append(Finding(node, check, "ok", message))

    def add_warning(self, node: str, check: str, message: str, fix: str) -> None:
        """Adds what somebody should know, and what to do about it."""
        self.findings.append(Finding(node, check, "warning", message, fix))

    def add_error(self, node: str, check: str, message: str, fix: str) -> None:
        """Adds what keeps a study from running, and what to do about it."""
        self.findings.append(Finding(node, check, "error", message, fix))


def add_node_facts(health: Health, name: str, facts: dict[str, Any]) -> None:
    """Adds the findings on one node's facts."""
    _add_versions(health, name, facts["versions"])
    health.add_ok(name, "devices", facts["devices"])
    free, total = facts["memory"]
    message = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if free < MIN_FREE_MEMORY:
        health.add_warning(name, "memory", message, "a worker takes 1 GiB and more: end other work there")
    else:
        health.add_ok(name, "memory", message)
    for place, size in facts["disk"].items():
        message = f"{size / 2**30:.1f} GiB free at {place}"
        if size < MIN_FREE_DISK:
            health.add_warning(
                name, "disk", message, "free some: Ray spills to it, runs and caches lie on it"
            )
        else:
            health.add_ok(name, "disk", message)
    for check, passed, message, fix in facts["checks"]:
        health.add_ok(name, check, message) if passed else health.add_error(name, check, message, fix)
    if facts["storage_speed"] is not None:
        writes, reads = facts["storage_speed"]
        add_speed(health, name, "storage speed", f"writes {writes:.0f} MB/s, reads {reads:.0f} MB/s", writes)


def _add_versions(health: Health, name: str, node_versions: dict[str, str]) -> None:
    own_versions = node.get_versions()
    differences = [
        f"{package} {node_versions[package]}, here {own_version}"
        for package, own_version in own_versions.items()
        if node_versions[package] != own_version
    ]
    if differences:
        health.add_error(
            name, "versions", "; ".join(differences),
            "install the same requirements.lock on every node; Ray refuses or misreads other versions",
        )  # fmt: skip
    else:
        message = ", ".join(
            f"{package} {node_versions[package]}" for package in ("python", "raykd", "torch", "ray")
        )
        health.add_ok(name, "versions", f"{message}, and all others, as here")


def add_mixtures(health: Health, all_facts: Sequence[dict[str, Any]], study: Study | None) -> None:
    """Adds a warning where a study's trials would run on devices, or in precisions, that do not compare.

    Args:
        health: Where the finding is added.
        all_facts: Of all nodes.
        study: Whose trials are to run; None: of any study.
    """
    gpus = Counter(gpu for facts in all_facts for gpu in facts["gpus"])
    cpus = Counter(facts["cpu"] for facts in all_facts)
    kinds_differ = "of different kinds ({}): trials on them do not compare exactly"
    fix = "run the study on nodes of one kind of {}; `raykd status` names a mixture"
    if len(gpus) > 1 and (study is None or study.cluster.gpus):
        kinds = ", ".join(f"{count} x {name}" for name, count in gpus.items())
        health.add_warning("cluster", "GPUs", kinds_differ.format(kinds), fix.format("GPU"))
    if len(cpus) < 2 or (gpus and study is not None and study.cluster.gpus):
        return  # alike, or no trial computes on them
    kinds = "; ".join(f"{count} x {name}" for name, count in cpus.items())
    is_auto = study is None or study.recipe.precision == "auto"
    if is_auto and len({facts["cpu_bf16"] for facts in all_facts}) > 1:
        health.add_warning(
            "cluster", "CPUs", f"`precision: auto` is bfloat16 on some and float32 on others: {kinds}",
            "say which: --set recipe/precision=float32",
        )  # fmt: skip
    else:
        health.add_warning("cluster", "CPUs", kinds_differ.format(kinds), fix.format("CPU"))


def add_gpu_sharing(health: Health, name: str, facts: dict[str, Any], study: Study | None) -> None:
    """Adds how trials would share a GPU of a node, where there is one and they may."""
    gpus = study.cluster.gpus if study else "auto"
    if not facts["gpus"] or (gpus != "auto" and not 0 < gpus < 1):
        return
    if facts["mps"]:
        health.add_ok(name, "GPUs", mps.describe(True))
    else:
        health.add_warning(name, "GPUs", mps.describe(False), mps.FIX)


def add_speed(health: Health, name: str, check: str, message: str, rate: float) -> None:
    """Adds a rate in MB/s: a warning where it is below SLOW_MB_PER_S."""
    if rate < SLOW_MB_PER_S:
        health.add_warning(
            name,
            check,
            message,
            f"below {SLOW_MB_PER_S:g} MB/s trials wait: take a nearer storage, a faster network",
        )
    else:
        health.add_ok(name, check, message)
