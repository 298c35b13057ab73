"""Paths and URIs as users write them, made absolute where they are read.

Ray moves each worker into a folder of its own, so no path leaves the driver as it was written. `~` and $NAME
are replaced; what is relative then is relative to the current folder. URIs (s3://...) keep their form.
"""

import hashlib
import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from raykd.errors import UserError, first_line, mask_passwords, reject_password

PACKAGE = Path(__file__).parent  # raykd's own folder
VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{(\w+)\})", re.ASCII)
SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", re.DOTALL)


def resolve(text: str) -> str:
    """Returns a path as an absolute one, a URI with its variables replaced.

    Raises:
        ValueError: It is empty, a variable is not set, there is no home folder for its `~`, or it holds a
            password.
    """
    expanded = expand(text)
    return reject_password(expanded) if "://" in expanded else str(Path(expanded).absolute())


def resolve_database(url: str) -> str:
    """Returns an SQLAlchemy URL, of a SQLite file with its absolute path. ValueError as for `resolve`."""
    url = reject_password(expand(url))
    if (match := SQLITE.fullmatch(url)) and match[2] != ":memory:":
        return match[1] + str(Path(expand(match[2])).absolute()) + match[3]
    return url


def expand(text: str) -> str:
    """Returns a path or URI with `~` and variables replaced, relative still. ValueError as for `resolve`."""
    if not text.strip():
        raise ValueError("should be a path or a URI, and is empty")
    for match in VARIABLE.finditer(text):
        if not os.environ.get(match[1] or match[2]):
            raise ValueError(f"{match[0]} is not set")
    try:
        path = VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], text)
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ValueError("there is no home folder for its ~") from None


ExpandedPath = Annotated[str, AfterValidator(expand)]  # of a file's settings; relative to what they say
AbsolutePath = Annotated[str, AfterValidator(resolve)]


def open_filesystem(location: str, place: str = "") -> tuple[Any, str]:
    """Returns pyarrow's file system of a path or URI, and the path in it.

    Raises:
        UserError: There is no such file system, or the URI holds a password; the line begins with `place`.
    """
    import pyarrow.fs  # here: it takes a while

    if "://" not in location:
        return pyarrow.fs.LocalFileSystem(), location
    uri = location
    if uri.startswith("s3://") and "allow_delayed_open" not in uri:
        uri += f"{'&' if '?' in uri else '?'}allow_delayed_open=true"  # one request a small file, not three
    try:
        system, path = pyarrow.fs.FileSystem.from_uri(reject_password(uri))
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise UserError([f"{place}{mask_passwords(location)}: {first_line(error)}"]) from None
    return system, path.rstrip("/")


def get_default_folder(variable: str, name: str) -> Path:
    """Returns the folder that an environment variable names, by default ~/.cache/raykd/NAME.

    Raises:
        UserError: The variable is not set and there is no home folder, or its value cannot be used.
    """
    try:
        return Path(resolve(os.environ.get(variable) or f"~/.cache/raykd/{name}"))
    except ValueError as error:
        raise UserError([f"${variable}: {error}; set it to a folder"]) from None


def get_cache_folder() -> Path:
    """Returns the folder of this machine's caches: $RAYKD_CACHE, by default ~/.cache/raykd; or UserError."""
    return get_default_folder("RAYKD_CACHE", "")


def get_given_cache_folder() -> str:
    """Returns $RAYKD_CACHE as an absolute path, "" where it is not set. UserError: it cannot be used."""
    return str(get_cache_folder()) if os.environ.get("RAYKD_CACHE") else ""


@cache
def hash_code(folder: Path) -> str:
    """Returns a hash of the Python files in a folder, their places and contents: 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
