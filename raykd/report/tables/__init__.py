"""The tables of a report, as Parquet, CSV and TensorBoard events."""
