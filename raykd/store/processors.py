"""How many processors this process may use, and what kind of device it computes on."""

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CGROUP_ROOT, CGROUP_FILE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def count_cpus(cgroup_root: Path = CGROUP_ROOT, cgroup_file: Path = CGROUP_FILE) -> int:
    """Returns how many CPUs this process may use.

    They are those of its affinity (taskset, Slurm, cpusets), or fewer where a cgroup's quota (a container's
    CPU limit) allows less. A part of a CPU does not count; at least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:  # macOS
        count = os.cpu_count() or 1
    return max(1, int(min([count, *_list_quotas(cgroup_root, cgroup_file)])))


def _list_quotas(root: Path, cgroup_file: Path) -> Iterator[float]:
    """Yields the CPU quotas, in CPUs, of the process's cgroups and of all that enclose them.

    A container's cgroup may be named by a path of the host that is not mounted: missing folders are passed
    over, and the mount's own top counts always.
    """
    lines = cgroup_file.read_text().splitlines() if cgroup_file.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [root / controllers, root / "cpu"] if controllers else [root, root / "unified"]
        for mount in mounts:
            inner = Path(path.strip("/"))
            for folder in (inner, *inner.parents):
                quota = _read_quota(mount / folder)
                if quota is not None:
                    yield quota


def _read_quota(folder: Path) -> float | None:
    """Returns one cgroup's quota in CPUs (cgroup v2's cpu.max, else v1's cpu.cfs_quota_us), None without."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file; "max"
        return None


def has_bf16(device: Any) -> bool:
    """Returns whether the torch device computes in bfloat16 in hardware; emulation does not count."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))


def name_device(device: Any) -> str:
    """Returns what kind of device a torch device is, in words: of two alike the numbers compare.

    A GPU's name, or a CPU's and whether it has bfloat16: "CPU AMD EPYC, bfloat16 in hardware".
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    bf16 = "bfloat16 in hardware" if has_bf16(device) else "no bfloat16 in hardware"
    return f"{device.type.upper()} {_name_cpu()}, {bf16}"


def _name_cpu() -> str:
    """Returns the CPU's model as the kernel names it, else its architecture."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.machine()
