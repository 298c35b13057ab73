"""A run's copies of the plugin files that it was begun with: kept, compared, and never run unasked.

Whoever gives a copy by --plugin has said that it may run; a folder that came from somebody else runs nothing.
"""

import hashlib

from raykd import plugins
from raykd.errors import UserError
from raykd.store import file_names
from raykd.store.folder import Folder, join_uri


def write_copies(folder: Folder) -> None:
    """Writes the plugin files in use into FOLDER/plugins. StorageError as Folder.write."""
    for name, source in plugins.get_sources().items():
        (folder / file_names.PLUGINS).write(name, source.encode())


def read_copies(folder: Folder) -> dict[str, str]:
    """Returns the texts of a folder's copies of plugin files, by file name."""
    copies = folder / file_names.PLUGINS
    return {name: copies.read(name).decode() for name in copies.list_names() if name.endswith(".py")}


def find_faults(folder: Folder) -> list[str]:
    """Returns a line for each plugin file of a run that is not in use, or in use with another text."""
    sources, lines = plugins.get_sources(), []
    for name, copy in read_copies(folder).items():
        place = join_uri((folder / file_names.PLUGINS).uri, name)
        if name not in sources:
            words = f"add --plugin {place} (the run's copy), or your own {name}"
            lines.append(f"{folder.uri}: uses the plugin {name}, which is code: {words}")
        elif sources[name] != copy:
            hashes = f"SHA-256 {_hash(sources[name])}, the copy's {_hash(copy)}"
            lines.append(
                f"--plugin {name}: differs from the copy in {folder.uri} ({hashes}): give --plugin {place}, "
                f"or begin a new run"
            )
    return lines


def require_plugins(folder: Folder) -> None:
    """Raises UserError unless the plugin files that a run was begun with are in use, unchanged."""
    if lines := find_faults(folder):
        raise UserError(lines)


def _hash(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:12]
