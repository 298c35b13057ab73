"""A node's MPS daemon ends with its run. (On a cluster: test_nodes.py.)"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.mps_control import find_daemon, write_control
from support.run_files import wait_for

from raykd.driver import mps

HOLD = "from raykd.driver import mps; d = mps.Daemon({!r}); print(d.start(), flush=True); input()"


def test_a_daemon_serves_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = mps.Daemon(tmp_path / "pipes")
    assert not mps.can_share() and not daemon.start() and not (tmp_path / "pipes").exists()
    monkeypatch.setenv("PATH", f"{write_control(tmp_path / 'bin')}:{os.environ['PATH']}")
    assert mps.can_share() and not mps.is_served() and daemon.start()
    process = find_daemon(tmp_path / "pipes")
    assert process.is_running() and process.environ()[mps.LOGS] == str(tmp_path / "pipes")
    monkeypatch.setenv(mps.PIPES, str(tmp_path / "pipes"))
    second = mps.Daemon(tmp_path / "others")
    assert second.start() and not (tmp_path / "others").exists()  # an administrator's serves already
    daemon.stop()
    second.stop()
    wait_for(lambda: not process.is_running())
    assert not (tmp_path / "pipes").exists() and not mps.is_served()


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    path = f"{write_control(tmp_path / 'bin')}:{os.environ['PATH']}"
    words = [sys.executable, "-c", HOLD.format(str(tmp_path / "pipes"))]
    holder = subprocess.Popen(
        words, env=os.environ | {"PATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    process = find_daemon(tmp_path / "pipes")
    holder.kill()
    holder.communicate()
    wait_for(lambda: not process.is_running() and not (tmp_path / "pipes").exists())
