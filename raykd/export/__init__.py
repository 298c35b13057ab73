"""A student handed on: the folder of an export (export.py), its programs and its card."""
