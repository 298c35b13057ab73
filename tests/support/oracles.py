"""What several oracles compute, and what tests measure."""

import torch
from torch import Tensor


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """T^2 KL of two rows of logits [c], by the definition."""
    p, q = ((z.detach() / temperature).softmax(0) for z in (teacher, student))
    return float((p * (p / q).log()).sum()) * temperature**2


def peak_bytes(profile: torch.profiler.profile) -> int:
    """The most that was allocated at once in a profile with profile_memory, beyond what was there before."""
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    allocated = peak = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak
