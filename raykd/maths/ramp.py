"""Schedules: functions of the part of the trial that is behind (0 <= progress < 1), so they scale with it."""

import torch
from torch import Tensor


def linear(progress: Tensor, length: float) -> Tensor:
    """From 0 up to 1 over the first `length` of the trial, 1 after it; a length of 0 is no ramp. [] -> []."""
    ramp = (progress / length).clamp(max=1) if length > 0 else torch.ones_like(progress)
    return ramp.float()
