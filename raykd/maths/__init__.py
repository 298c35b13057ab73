"""Losses, statistics and solvers that methods share: functions of tensors, and of all ranks' rows."""
