"""Schedules: functions of the part of the trial that is behind (0 <= progress < 1), so they scale with it."""


def linear(progress: float, length: float) -> float:
    """From 0 up to 1 over the first `length` of the trial, 1 after it; a length of 0 is no ramp."""
    return min(progress / length, 1.0) if length > 0 else 1.0
