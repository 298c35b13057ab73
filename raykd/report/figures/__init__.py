"""The figures of a report, one idea a file."""
