"""Moments on a device's own timeline: a GPU's are marks in its queue, which nobody waits for."""

import time
from typing import cast

import torch

Moment = float | torch.Event


class Clock:
    """The clock of a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> Moment:
        """Returns this moment; a GPU's comes when all that was asked of it before is done."""
        if self._device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(self._device, enable_timing=True)
        event.record()
        return event

    def is_past(self, moment: Moment) -> bool:
        """Returns whether a moment has come; does not wait."""
        return self._device.type == "cpu" or cast(torch.Event, moment).query()

    def seconds(self, since: Moment, until: Moment) -> float:
        """Returns the seconds between two moments; waits until they have come."""
        if self._device.type == "cpu":
            return cast(float, until) - cast(float, since)
        first, last = cast(torch.Event, since), cast(torch.Event, until)
        last.synchronize()
        return first.elapsed_time(last) / 1000
