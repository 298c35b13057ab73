"""Rows -> statistics -> figures, tables -> one HTML page that opens from disk. Needs no Ray, torch or GPU."""
