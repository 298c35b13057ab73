"""What the verbs share: their options, and how these become a study and a folder."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, CallbackParam, Option


def resolve_path(param: CallbackParam, value: Any) -> Any:
    """Returns an option's paths or URIs made absolute. UserError names the option whose cannot be."""
    from raykd.paths import resolve

    return _apply(resolve, param, value)


def expand_path(param: CallbackParam, value: Any) -> Any:
    """Returns an option's paths with `~` and variables replaced: of files that are read at once."""
    from raykd.paths import expand

    return _apply(expand, param, value)


def find_study(param: CallbackParam, value: Any) -> Any:
    """Returns the file of a study: a path, or the name of one that comes with raykd. UserError: neither."""
    from raykd.study.study_files import find_file, list_study_files

    return None if value is None else find_file(expand_path(param, value), list_study_files())


def find_recipe(param: CallbackParam, value: Any) -> Any:
    """Returns the file of a recipe: a path, or the name of one that comes with raykd. UserError: neither."""
    from raykd.study.study_files import find_file, list_recipe_files

    return find_file(expand_path(param, value), list_recipe_files())


def _apply(function: Callable[[str], str], param: CallbackParam, value: Any) -> Any:
    from raykd.errors import UserError

    values = value if isinstance(value, list | tuple) else [] if value is None else [value]
    try:
        results = [type(one)(function(str(one))) for one in values]
    except ValueError as error:
        raise UserError([f"{param.opts[0]}: {error}"]) from None
    return results if isinstance(value, list | tuple) else (results or [None])[0]


def use_plugins(param: CallbackParam, value: list[str]) -> list[str]:
    """Runs these plugin files, and no others, in this process. UserError when one cannot be used."""
    from raykd import plugins

    places: list[str] = resolve_path(param, value)
    plugins.use(plugins.read_files(places))
    if places:
        from raykd.study.offers import check_offers

        check_offers()
    return places


class Tracker(StrEnum):
    """What can follow a run."""

    MLFLOW, WANDB, TENSORBOARD = "mlflow", "wandb", "tensorboard"


NO_OVERRIDES: list[str] = []
NO_PATHS: list[Path] = []
Set = Annotated[list[str], Option("--set", metavar="PATH=VALUE", help="Override a setting; may be repeated.")]
NO_PLUGINS: list[str] = []
Plugin = Annotated[
    list[str],
    Option(
        "--plugin",
        metavar="FILE.py",
        callback=use_plugins,
        is_eager=True,
        help="Nets, methods, data sets, samplers of your own: a file that is run; may be repeated.",
    ),
]
Data = Annotated[
    Path | None,
    Option(
        "--data",
        callback=resolve_path,
        help="Where data sets lie. Default: $RAYKD_DATA or ~/.cache/raykd/data.",
    ),
]
Download = Annotated[bool, Option("--download", help="Fetch a missing data set from its official place.")]
Storage = Annotated[
    str,
    Option("--storage", callback=resolve_path, help="Folder or URI that holds runs and trained teachers."),
]
Address = Annotated[
    str | None, Option("--address", help="Of a Ray cluster; default: a session on this machine.")
]
Json = Annotated[bool, Option("--json", help="Print JSON.")]
Track = Annotated[
    list[Tracker], Option("--track", help="Log the trials there, too, while they run; may be repeated.")
]
NO_TRACKERS: list[Tracker] = []
RunPath = Annotated[str, Argument(metavar="RUN", callback=resolve_path, help="Folder or URI of a run.")]
StudyFile = Annotated[
    Path,
    Argument(metavar="STUDY", callback=find_study, help="A study file (YAML), or a name of `raykd studies`."),
]


def read_study(path: Path, overrides: list[str]) -> Any:
    """Returns a study file, of one method or several, with the overrides of --set in it.

    Raises:
        UserError: Every mistake.
    """
    from raykd.study.comparison import read_study

    return read_study(path, tuple(overrides))


def resolve_data_root(data: Path | None) -> Path:
    """Returns where data sets lie: --data, or the default."""
    from raykd.data import default_root

    return data if data is not None else default_root()
