"""The command line: `raykd VERB`."""

from raykd.cli.app import main

__all__ = ["main"]
