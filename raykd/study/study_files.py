"""The study files and recipes that come with raykd: `studies` beside this package, in a clone a link."""

from collections.abc import Iterable
from pathlib import Path

from raykd.errors import UserError, suggest_nearest
from raykd.paths import PACKAGE

FOLDER = PACKAGE / "studies"
RECIPES = FOLDER / "found"  # what studies have found, for `raykd train`


def list_study_files() -> dict[str, Path]:
    """Returns the study files by name: the path below `studies` without its suffix."""
    return _name_files(path for path in FOLDER.rglob("*.yaml") if path.parent != RECIPES)


def list_recipe_files() -> dict[str, Path]:
    """Returns the recipes that were found by name, which begins with `found/`."""
    return _name_files(RECIPES.glob("*.yaml"))


def _name_files(paths: Iterable[Path]) -> dict[str, Path]:
    files = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in paths}
    return {name: files[name] for name in sorted(files, key=lambda name: (name.count("/"), name))}


def get_title(path: Path) -> str:
    """Returns the first line of a study file, a comment that says what it is."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def find_file(path: Path, files: dict[str, Path]) -> Path:
    """Returns a file as it is, or the one of `files` that has that name. UserError where there is neither."""
    return path if path.exists() and not path.is_dir() else get_file(path.as_posix(), files)


def get_file(name: str, files: dict[str, Path]) -> Path:
    """Returns the one of `files` with a name, which may begin with `studies/` and end in `.yaml`.

    Raises:
        UserError: There is none, with the nearest name.
    """
    short = name.removeprefix("studies/").removesuffix(".yaml")
    if short in files:
        return files[short]
    same_end = [f"'{other}'" for other in files if other.endswith(f"/{short}")]
    hint = f" Did you mean {' or '.join(same_end)}?" if same_end else suggest_nearest(short, files)
    raise UserError([f"{name}: no such file, and `raykd studies` lists no such name.{hint}"])
