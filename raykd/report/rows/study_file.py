"""What a run was asked to do: its study.yaml, checked; or what of it can be read, where that fails."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml.error import YAMLError

from raykd import methods
from raykd.errors import BadInput
from raykd.methods._catalogue import published
from raykd.report.rows.read import Notes
from raykd.report.rows.types import PublishedRow
from raykd.spec import Scalar
from raykd.store.run_files import Ledger
from raykd.study.study import Study

# What runs that are compared may differ in: the method, the nets (each pair has its own table), the name.
MAY_DIFFER = (
    "name", "recipe/method/", "recipe/plus_kd", "recipe/student/", "recipe/teacher/net", "space/", "first",
    "keep", "search/storage", "confirm/controls",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    plain: dict[str, Any]  # study.yaml as it is
    study: Study | None  # None: this version cannot take it

    def at(self, path: str) -> Any:
        """The value at a path of the study file; None where there is none."""
        node: Any = self.plain
        for part in path.split("/"):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def text(self, path: str, otherwise: str = "unknown") -> str:
        found = self.at(path)
        return otherwise if found is None else str(found)

    def number(self, path: str, otherwise: float = 0.0) -> float:
        found = self.at(path)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else otherwise

    def devices(self, workers: str) -> float:
        """Devices that so many workers take: GPUs where they take any, else CPUs."""
        each = self.number("cluster/gpus") or self.number("cluster/cpus", 1.0)
        return self.number(workers, 1.0) * each

    def method(self) -> tuple[str, str, str]:
        """Its name, its status, its paper; unknown where this version has no such method."""
        name = self.text("recipe/method/name")
        if name not in methods.names():
            return name, "unknown", "a method that this version does not have"
        found = methods.module(name).Method
        return name, found.status, found.paper

    def conditions(self) -> dict[str, Scalar | None]:
        """{path: value} of all that runs should share to be compared."""
        return {path: v for path, v in leaves("", self.plain) if not path.startswith(MAY_DIFFER)}

    def published(self) -> list[PublishedRow]:
        """What papers and official codes print of this method on this pair and data set."""
        teacher, student = self.text("recipe/teacher/net", "none"), self.text("recipe/student/net")
        plus_kd = self.at("recipe/plus_kd") is not None
        return printed(self.method()[0], plus_kd, self.text("recipe/data/name"), teacher, student)


def printed(method: str, plus_kd: bool, data: str, teacher: str, student: str) -> list[PublishedRow]:
    """Published top-1 accuracies (%) of a method, alone or beside KD, on a pair and data set."""
    pair = f"{teacher} -> {student}".lower()
    found: list[PublishedRow] = []
    for row in published():
        beside = row["system"].partition(" + ")[2]  # "KD", or a variant that is a method of its own
        if (row["method"], row["data"], beside) == (method, data, "KD" if plus_kd else ""):
            values = {key.lower(): of for key, of in row["top1"].items()}.get(pair, [])
            found += [PublishedRow(value, f"{row['system']}: {row['source']}") for value in values]
    return found


def settings(method: str) -> tuple[tuple[str, Scalar | None], ...]:
    """(path, value) of a method's own settings, as its paper has them."""
    return tuple(leaves("", methods.config(method).model_validate({"name": method}).model_dump(mode="json")))


def read(ledger: Ledger, notes: Notes) -> Asked:
    """The run's study; a note says where and why it could not be taken as it is."""
    try:
        plain = ledger.study()
    except (YAMLError, UnicodeDecodeError) as error:
        notes.add(f"cannot be read: {str(error).splitlines()[0]}", "study.yaml")
        return Asked({}, None)
    if not isinstance(plain, dict):
        notes.add("cannot be read: holds no settings", "study.yaml")
        return Asked({}, None)
    try:
        return Asked(plain, Study.parse(plain, "study.yaml"))
    except BadInput as error:
        notes.add("this version cannot take it; ranges are shown as far as trials went", "study.yaml")
        for line in error.lines[:5]:
            notes.add(line)
        return Asked(plain, None)


def leaves(path: str, node: Any) -> Iterator[tuple[str, Scalar | None]]:
    """(path, value) of each value in nested settings."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(f"{path}/{key}" if path else str(key), value)
    else:
        yield path, node if node is None or isinstance(node, bool | int | float | str) else str(node)
