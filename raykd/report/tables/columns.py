"""Arrow tables whose columns carry their unit and description; as Parquet and CSV files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from raykd.spec import Scalar

Cell = Scalar | None
Item = TypeVar("Item")
STRING, INT64, FLOAT64 = pa.string(), pa.int64(), pa.float64()
TIMESTAMP = pa.timestamp("ms", tz="UTC")


@dataclass(frozen=True)
class Column(Generic[Item]):
    """One column: its name, type, unit ("" without one), its description, and its cell of an item."""

    name: str
    type: pa.DataType
    unit: str
    description: str
    get_cell: Callable[[Item], Cell]


def build_table(columns: Sequence[Column[Item]], items: Sequence[Item]) -> pa.Table:
    """Returns a table of one row an item."""
    fields = [
        pa.field(c.name, c.type, metadata={"unit": c.unit, "description": c.description}) for c in columns
    ]
    arrays = [pa.array([c.get_cell(item) for item in items], type=c.type) for c in columns]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def write_tables(tables: Mapping[str, pa.Table], folder: Path) -> None:
    """Writes each table as FOLDER/NAME.parquet and NAME.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
        csv.write_csv(table, folder / f"{name}.csv")
