"""A run's study.yaml, checked; or what of it can be read, where that fails."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raykd import methods
from raykd.errors import UserError, first_line
from raykd.methods._catalogue import read_published
from raykd.report.rows.read import ProblemLog
from raykd.report.rows.types import PublishedRow
from raykd.spec import Scalar, get_value
from raykd.store import file_names
from raykd.store.plugin_copies import find_faults
from raykd.store.run_files import RunFiles
from raykd.study.starts import describe_starts, name_teachers
from raykd.study.study import Study

NET_PLACES = ("student", "teacher", *(f"teachers/{number}" for number in range(8)))
NET_FIELDS = ("net", "weights", "sha256", "head")
# What runs that are compared may differ in: the method, the nets (each pair has its own table), the name; the
# files that nets start from are compared as starts.
MAY_DIFFER = (
    "name", "recipe/method/", "recipe/plus_kd", "space/", "enqueue", "keep",
    *(f"recipe/{place}/{field}" for place in NET_PLACES for field in NET_FIELDS),
    "search/storage", "confirm/controls",
)  # fmt: skip


@dataclass(frozen=True)
class StudyFile:
    """A run's study: as it stands in the file, and checked."""

    content: dict[str, Any]  # study.yaml as it is
    study: Study | None  # None: this version cannot take it

    def get_value(self, path: str) -> Any:
        """Returns the value at a path of the study file; None where there is none."""
        return get_value(self.content, path)

    def get_text(self, path: str, default: str = "unknown") -> str:
        """Returns the value at a path as text."""
        value = self.get_value(path)
        return default if value is None else str(value)

    def get_number(self, path: str, default: float = 0.0) -> float:
        """Returns the number at a path; `default` where there is none."""
        value = self.get_value(path)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else default

    def count_devices(self, workers: str) -> float:
        """Returns the devices that so many workers take: GPUs where they take any, else CPUs."""
        each = self.get_number("cluster/gpus") or self.get_number("cluster/cpus", 1.0)
        return self.get_number(f"{workers}/max", self.get_number(workers, 1.0)) * each

    def describe_method(self) -> tuple[str, str, str]:
        """Returns the method's name, status and paper; unknown where this version has no such method."""
        name = self.get_text("recipe/method/name")
        if name not in methods.names():
            return name, "unknown", "a method that this version does not have"
        method = methods.get_class(name)
        return name, method.status, method.paper

    def get_conditions(self) -> dict[str, Scalar | None]:
        """Returns {path: value} of all that runs should share to be compared."""
        settings = flatten_settings("", self.content)
        starts = {f"recipe/{role}/start": start for role, start in self.get_starts().items()}
        return {path: v for path, v in settings if not path.startswith(MAY_DIFFER)} | starts

    def name_teachers(self) -> str:
        """Returns the nets of the teachers; "none" without one."""
        recipe = self.get_value("recipe")
        return name_teachers(recipe) if isinstance(recipe, dict) else "none"

    def count_teachers(self) -> int:
        """Returns how many teachers `teachers` names."""
        teachers = self.get_value("recipe/teachers")
        return len(teachers) if isinstance(teachers, list) else 0

    def get_starts(self) -> dict[str, str]:
        """Returns in words what the student and the teacher begin with; no paths."""
        recipe = self.get_value("recipe")
        return describe_starts(recipe) if isinstance(recipe, dict) else {}

    def find_published_rows(self) -> list[PublishedRow]:
        """Returns what papers and official codes print of this method on this pair and data set."""
        if self.study is not None and self.study.search.metric != "accuracy":
            return []  # they are top-1
        student, plus_kd = self.get_text("recipe/student/net"), self.get_value("recipe/plus_kd") is not None
        return find_published(
            self.describe_method()[0],
            plus_kd,
            self.get_text("recipe/data/name"),
            self.name_teachers(),
            student,
        )


def find_published(method: str, plus_kd: bool, data: str, teacher: str, student: str) -> list[PublishedRow]:
    """Returns published top-1 accuracies (%) of a method, alone or beside KD, on a pair and data set."""
    pair = f"{teacher} -> {student}".lower()
    rows: list[PublishedRow] = []
    for row in read_published():
        addition = row["system"].partition(" + ")[2]  # "KD", or a variant that is a method of its own
        if (row["method"], row["data"], addition) == (method, data, "KD" if plus_kd else ""):
            values = {key.lower(): accuracies for key, accuracies in row["top1"].items()}.get(pair, [])
            rows += [PublishedRow(value, f"{row['system']}: {row['source']}") for value in values]
    return rows


def paper_settings(method: str) -> tuple[tuple[str, Scalar | None], ...]:
    """Returns (path, value) of a method's own settings, as its paper has them."""
    return tuple(
        flatten_settings(
            "", methods.get_config_class(method).model_validate({"name": method}).model_dump(mode="json")
        )
    )


def read_study_file(run_files: RunFiles, problems: ProblemLog) -> StudyFile:
    """Returns the run's study; a problem says where and why it could not be taken as it is."""
    try:
        content = run_files.resolved_study()
    except UserError as error:
        problems.add(f"cannot be read: {first_line(error)}", file_names.STUDY)
        return StudyFile({}, None)
    for line in find_faults(run_files.folder):
        problems.add(line)
    try:
        return StudyFile(content, Study.parse(content, file_names.STUDY))
    except UserError as error:
        problems.add("this version cannot take it; ranges are shown as far as trials went", file_names.STUDY)
        for line in error.lines[:5]:
            problems.add(line)
        return StudyFile(content, None)


def flatten_settings(path: str, node: Any) -> Iterator[tuple[str, Scalar | None]]:
    """Yields (path, value) of each value in nested settings."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flatten_settings(f"{path}/{key}" if path else str(key), value)
    elif isinstance(node, list) and all(isinstance(value, dict) for value in node):
        for number, value in enumerate(node):
            yield from flatten_settings(f"{path}/{number}", value)
    else:
        yield path, node if node is None or isinstance(node, bool | int | float | str) else str(node)
