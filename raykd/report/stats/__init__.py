"""The statistics that a report states."""
