"""Arrow tables whose columns carry their unit and what they say; as Parquet and CSV files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from raykd.space import Scalar

Cell = Scalar | None
TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
TIME = pa.timestamp("ms", tz="UTC")


@dataclass(frozen=True)
class Column:
    """One column: its name, type, unit ("" without one), and what it says."""

    name: str
    type: pa.DataType
    unit: str
    says: str


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> pa.Table:
    fields = [pa.field(c.name, c.type, metadata={"unit": c.unit, "description": c.says}) for c in columns]
    arrays = [pa.array([row[i] for row in rows], type=c.type) for i, c in enumerate(columns)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def write(tables: Mapping[str, pa.Table], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, of in tables.items():
        pq.write_table(of, folder / f"{name}.parquet")
        csv.write_csv(of, folder / f"{name}.csv")
