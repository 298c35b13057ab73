"""Image files in class folders, BASE/PART/CLASS/*.jpg: which files are images, and of which class.

What systems and tools leave behind is passed over wherever it lies: names that begin with a dot (._* of
AppleDouble, .DS_Store, .ipynb_checkpoints), __MACOSX, Thumbs.db, desktop.ini, @eaDir. Names are compared in
Unicode's form NFC, since file systems differ in the form that they keep, and bytes that are not UTF-8 are
escaped.
"""

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from raykd.errors import UserError

# torchvision's ImageFolder's, and GIF
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff")
INDEX_FOLDER = "_index"  # of shards (shards.py); Parquet readers pass over names that begin so
LEFT_BEHIND = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")

FilesByClass = dict[str, list[str]]  # class -> files, sorted


@contextlib.contextmanager
def _refuse_unreadable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError([f"data: {error.filename}: cannot be read ({error.strerror})"]) from None


@_refuse_unreadable()
def list_train_and_test(base: Path, parts: tuple[str, str]) -> tuple[FilesByClass, FilesByClass]:
    """Returns the images of two parts, BASE/PART/CLASS/*.jpg. UserError when the layout is another one."""
    layout = f"{base}/{{{','.join(parts)}}}/CLASS/*.jpg"
    for part in parts:
        if not (base / part).is_dir():
            raise UserError([f"data: {base / part}: no such folder. Expected: {layout}"])
    train, test = (list_by_class(base / part) for part in parts)
    if odd := sorted(set(train) ^ set(test)):
        raise UserError(
            [
                f"data: {base}: class folders differ between {' and '.join(parts)}: {odd[:5]}. Expected: "
                f"{layout}, the same classes in both"
            ]
        )
    return train, test


@_refuse_unreadable()
def list_parts(base: Path) -> dict[str, FilesByClass]:
    """Returns the images of every part, BASE/PART/CLASS/*.jpg. UserError when there is none."""
    parts = {name: list_by_class(part) for name, part in list_part_folders(base) if list_folders(part)}
    if not parts:
        raise UserError([f"data: {base}: holds no images. Expected: {base}/PART/CLASS/*.jpg"])
    return parts


@_refuse_unreadable()
def list_by_class(part: Path) -> FilesByClass:
    """Returns the images of each class, PART/CLASS/*.jpg, at any depth below CLASS.

    Raises:
        UserError: A class has no images, there is no class, or a folder cannot be read.
    """
    by_class: FilesByClass = {}
    for name, folder in list_folders(part):
        by_class.setdefault(name, []).extend(list_images(folder))
    if not by_class and any(is_image(path.name) for path in part.iterdir()):
        raise UserError([f"data: {part}: its images lie in no class folder. Expected: {part}/CLASS/*.jpg"])
    if empty := [name for name, files in by_class.items() if not files] or ([] if by_class else [part.name]):
        raise UserError([f"data: {part}: no images for {empty[:5]} (endings: {', '.join(SUFFIXES)})"])
    return by_class


@_refuse_unreadable()
def count_passed_over(part: Path) -> int:
    """Returns how many files of a part are no images of a class: other endings, or in no class folder."""
    count = 0
    for folder, subfolders, files in os.walk(part, followlinks=True):
        subfolders[:] = [name for name in subfolders if not is_left_behind(name)]
        in_class = folder != str(part)
        count += sum(not is_left_behind(file) and not (in_class and is_image(file)) for file in files)
    return count


def list_part_folders(base: Path) -> list[tuple[str, Path]]:
    """Returns the name and path of each folder here that may be a part: shards (shards.py) are none."""
    return [
        (name, path) for name, path in list_folders(base) if not any((path / INDEX_FOLDER).glob("*.parquet"))
    ]


def list_folders(base: Path) -> list[tuple[str, Path]]:
    """Returns the name and path of each folder here that is not passed over, sorted; none for a file."""
    if not base.is_dir():
        return []
    with os.scandir(base) as entries:  # it knows a folder from a file without a look at each
        folders = [entry for entry in entries if not is_left_behind(entry.name) and entry.is_dir()]
    return sorted((to_text(folder.name), Path(folder.path)) for folder in folders)


def list_images(folder: Path) -> list[str]:
    """Returns the image files at any depth below a folder, sorted."""
    return sorted(sorted(_find_images(str(folder))), key=to_text)


def is_left_behind(name: str) -> bool:
    """Returns whether a file or folder of this name was left by a system or tool, or is hidden."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def is_image(name: str) -> bool:
    """Returns whether a file of this name is read as an image."""
    return name.lower().endswith(SUFFIXES) and not is_left_behind(name)


def to_text(name: str) -> str:
    """Returns a file's name for comparing and printing: form NFC, with bytes that are not UTF-8 escaped."""
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def _find_images(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_image(entry.name):
                yield entry.path
            elif not is_left_behind(entry.name) and entry.is_dir():
                yield from _find_images(entry.path)
