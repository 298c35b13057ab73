"""The parts of a data set in any form that is read: class folders, Hugging Face's Parquet files, shards."""

from pathlib import Path
from typing import NamedTuple

from raykd.data import class_folders
from raykd.data.encoded import EncodedImages, ImageFiles
from raykd.errors import UserError, mask_passwords, suggest_nearest


class ImageParts(NamedTuple):
    """Where the images of two parts lie; nothing is decoded yet."""

    classes: tuple[str, ...]
    train: EncodedImages
    test: EncodedImages


def open_parts(base: str, train: str, test: str, label: str | None) -> ImageParts:
    """Returns the images of two parts.

    Args:
        base: A path, or a URI that pyarrow.fs understands.
        train: The part to train on.
        test: The part to test on.
        label: The column of labels in Parquet files; None: the usual ones.

    Raises:
        UserError: The layout is another one, the classes of both parts differ, or a URI holds no such parts.
    """
    from raykd.data import (
        parquet,
        parquet_layout,
        shards,
    )  # here: pyarrow takes a while, and folders need it not

    names = (train, test)
    parts: list[tuple[tuple[str, ...], EncodedImages]]
    if set(names) <= set(shards.list_parts(base)) and label is None:
        parts = [*(shards.open_part(base, name) for name in names)]
    elif there := parquet_layout.list_parts(base):
        for field, name in zip(("train", "test"), names, strict=True):
            if name not in there:
                hint = suggest_nearest(name, there) or f" There are: {', '.join(there)}"
                raise UserError([f"data: {mask_passwords(base)}: data/{field} = {name}: no such part.{hint}"])
        parts = [*(parquet.open_part(base, name, label) for name in names)]
    elif "://" in base:
        expected = " and ".join(f"data/{name}-00000-of-00001.parquet" for name in names)
        raise UserError([f"data: {mask_passwords(base)}: no Parquet files of images. Expected: {expected}"])
    else:
        folders = class_folders.list_train_and_test(Path(base), names)
        parts = [(tuple(by_class), ImageFiles.from_classes(by_class)) for by_class in folders]
    (classes, train_images), (test_classes, test_images) = parts
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))[:5] or "their order"
        raise UserError([f"data: {mask_passwords(base)}: classes differ between {train} and {test}: {odd}"])
    return ImageParts(classes, train_images, test_images)
