"""What a killed driver leaves in the temporary folder, and whose code a worker runs."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raykd.driver import leftovers, same_code
from raykd.store.folder import Folder

PROGRAM = """
import os, signal, sys
from raykd.driver import leftovers
from raykd.store.folder import Folder
leftovers.record_session(Folder(sys.argv[1]), sys.argv[2])
with leftovers.temporary_folder(sys.argv[1] + "/trials/00000"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_folders_of_a_killed_driver_go_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run's own; a living process's and a stranger's stay."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    runs = [tmp_path / "runs" / name for name in ("ours", "theirs")]
    for run in runs:
        run.mkdir(parents=True)
        (tmp_path / f"session-{run.name}").mkdir()
        words = [sys.executable, "-c", PROGRAM, str(run), str(tmp_path / f"session-{run.name}")]
        subprocess.run(words, check=False)
    stranger = Path(tempfile.mkdtemp(prefix="raykd-"))
    with leftovers.temporary_folder(str(runs[0])) as alive:
        assert len(list((tmp_path / "tmp").iterdir())) == 4
        leftovers.remove_dead(Folder(str(runs[0])))
        left = list((tmp_path / "tmp").iterdir())
        assert len(left) == 3 and stranger in left and Path(alive) in left
    assert not (tmp_path / "session-ours").exists() and (tmp_path / "session-theirs").exists()
    (other,) = (path for path in (tmp_path / "tmp").iterdir() if path != stranger)
    assert json.loads((other / leftovers.MARK).read_text())["owner"] == f"{runs[1]}/trials/00000"


def test_a_worker_with_other_code_is_told_from_the_driver() -> None:
    ours = same_code.get_fingerprint()
    assert same_code.describe_difference(ours, ours) == ""
    elsewhere = ours | {"host": "node-7", "raykd's folder": "/opt/raykd"}
    assert same_code.describe_difference(ours, elsewhere) == ""  # the same files at another place
    for name in ("raykd", "torch", "Python", "raykd's files"):
        difference = same_code.describe_difference(ours, elsewhere | {name: "another"})
        assert "node-7 runs other code than the driver" in difference and f"{name} another" in difference
    shadow = same_code.describe_difference(ours, ours | {"raykd's folder": "/home/me/raykd"})
    assert "raykd's folder /home/me/raykd" in shadow


def test_ray_does_not_start_in_a_folder_that_could_hide_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with same_code.leave_current_folder(str(tmp_path / "empty")):
        assert Path.cwd() == tmp_path / "empty"
    assert Path.cwd() == tmp_path
    monkeypatch.syspath_prepend(str(tmp_path))  # the driver itself imports from here
    with same_code.leave_current_folder(str(tmp_path / "empty")):
        assert Path.cwd() == tmp_path
