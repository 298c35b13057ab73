"""What the verbs share: their options, and how these become a study and a folder."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

NOTHING: list[str] = []
NO_PATHS: list[Path] = []
Set = Annotated[list[str], Option("--set", metavar="PATH=VALUE", help="Override a setting; may be repeated.")]
Data = Annotated[
    Path | None, Option("--data", help="Where data sets lie. Default: $RAYKD_DATA or ~/.cache/raykd/data.")
]
Download = Annotated[bool, Option("--download", help="Fetch a missing data set from its official place.")]
Storage = Annotated[str, Option("--storage", help="Folder or URI that holds runs and trained teachers.")]
Address = Annotated[
    str | None, Option("--address", help="Of a Ray cluster; default: one of this machine's own.")
]
Json = Annotated[bool, Option("--json", help="Print JSON.")]
RunPath = Annotated[str, Argument(metavar="RUN", help="Folder or URI of a run.")]
StudyFile = Annotated[Path, Argument(metavar="STUDY", help="A study file (YAML).")]


def study_of(path: Path, overrides: list[str]) -> Any:
    from raykd.study.study import Study

    return Study.read(path, tuple(overrides))


def root_of(given: Path | None) -> Path:
    from raykd.data import default_root

    return given if given is not None else default_root()
