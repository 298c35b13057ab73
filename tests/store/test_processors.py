"""The processors that are ours: by affinity and by a cgroup's quota."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raykd.store.processors import count_cpus, has_bf16, name_device

CGROUP_V1 = Path("/sys/fs/cgroup/cpu")
NUM_ALLOWED = len(os.sched_getaffinity(0))


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("process", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),
        ("0::/a\n", {"a/cpu.max": "20000 100000\n"}, 1),  # a part of a CPU is one
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, NUM_ALLOWED),
        ("0::/a\n", {"a/cpu.max": f"{100_000 * (NUM_ALLOWED + 1)} 100000\n"}, NUM_ALLOWED),
        ("0::/docker/of-the-host\n", {"cpu.max": "100000 100000\n"}, 1),
        (
            "3:cpu,cpuacct:/docker/1\n1:name=systemd:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "3:cpuset:/\n1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            NUM_ALLOWED,
        ),
        ("", {}, NUM_ALLOWED),
        ("torn", {"cpu.max": ""}, NUM_ALLOWED),
    ],
)  # fmt: skip
def test_a_quota_bounds_the_cpus(tmp_path: Path, process: str, files: dict[str, str], expected: int) -> None:
    write_files(tmp_path / "root", files)
    write_files(tmp_path, {"cgroup": process})
    assert count_cpus(tmp_path / "root", tmp_path / "cgroup") == expected
    assert count_cpus(tmp_path / "none", tmp_path / "none") == NUM_ALLOWED


@pytest.fixture
def cpu_group() -> Path:
    """A real cgroup of one CPU, in whichever version this machine has; needs the right to make one."""
    folder = (CGROUP_V1 if CGROUP_V1.is_dir() else CGROUP_V1.parent) / f"raykd-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("a cgroup cannot be made here")
    try:
        if CGROUP_V1.is_dir():
            (folder / "cpu.cfs_quota_us").write_text((folder / "cpu.cfs_period_us").read_text())
        elif (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text("100000 100000")
        else:
            pytest.skip("cgroups here have no CPU controller")
        yield folder
    finally:
        folder.rmdir()


def test_a_real_quota_bounds_the_cpus(cpu_group: Path) -> None:
    program = "from raykd.store.processors import count_cpus; print(count_cpus())"
    words = [
        "sh",
        "-c",
        f'echo $$ > "{cpu_group}/cgroup.procs" && exec "$0" -c "$1"',
        sys.executable,
        program,
    ]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset here")
def test_an_affinity_bounds_the_cpus() -> None:
    cpu = str(min(os.sched_getaffinity(0)))
    program = "from raykd.store.processors import count_cpus; print(count_cpus())"
    words = ["taskset", "-c", cpu, sys.executable, "-c", program]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "1\n"


def test_nobody_counts_the_machines_cpus_instead() -> None:
    """os.cpu_count() knows neither: only one module may ask it."""
    package = Path(sys.modules["raykd"].__file__ or "").parent
    users = [path.name for path in package.rglob("*.py") if "cpu_count(" in path.read_text()]
    assert users == ["processors.py"]


def test_a_cpu_is_named_with_its_precision() -> None:
    cpu = torch.device("cpu")
    name = name_device(cpu)
    assert name.startswith("CPU ") and name.endswith(
        ", bfloat16 in hardware" if has_bf16(cpu) else ", no bfloat16 in hardware"
    )
    assert not has_bf16(torch.device("meta"))
