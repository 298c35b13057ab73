"""Parquet files as Hugging Face's `datasets` writes them: by releases before 4, and since."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encode_png(shade: int, side: int = 12) -> bytes:
    """A small image, another one for each shade."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(
    path: Path,
    shades: list[int],
    classes: list[str] | None = None,
    image: str = "image",
    **columns: list[Any],
) -> None:
    """One file. `columns`: of labels; the features name the classes of them all, None for none."""
    feature = (
        {"dtype": "int64", "_type": "Value"} if classes is None else {"names": classes, "_type": "ClassLabel"}
    )
    features = {image: {"_type": "Image"}} | dict.fromkeys(columns, feature)
    images = [{"bytes": encode_png(shade), "path": f"{shade}.png"} for shade in shades]
    arrays = {image: pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
    table = pa.table(arrays | {name: pa.array(values) for name, values in columns.items()})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=2)
