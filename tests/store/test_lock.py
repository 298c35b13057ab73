"""A run's lock on a disk: who asks for the holder takes nothing. (On an object store: test_storage.py.)"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from raykd.errors import UserError
from raykd.store.file_names import LOCK
from raykd.store.folder import Folder
from raykd.store.lock import hold_lock, lock_holder
from raykd.store.run_files import RunFiles

READ_AS_COLLEAGUE = """
import os, sys
from raykd.store.run_files import RunFiles
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
print(RunFiles(sys.argv[1]).state())
"""


def test_the_holder_is_named_and_ends_with_its_block(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert lock_holder(folder) == ""
    with hold_lock(folder):
        assert f"process {os.getpid()} on " in lock_holder(folder)
        with pytest.raises(UserError, match=f"driven by process {os.getpid()} on "), hold_lock(folder):
            pass
        assert lock_holder(folder)  # asking and being refused took nothing from the holder
        (tmp_path / LOCK).write_text("")
        assert lock_holder(folder) == "a process that has just begun"
    assert lock_holder(folder) == "" and (tmp_path / LOCK).exists()


@pytest.mark.slow
def test_readers_never_hinder_a_launch_nor_each_other(tmp_path: Path) -> None:
    folder, stop, answers = Folder(str(tmp_path)), threading.Event(), set()
    with hold_lock(folder):
        pass

    def ask() -> None:
        while not stop.is_set():
            answers.add(lock_holder(folder))

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(300):
            answers.add(lock_holder(folder))
        assert answers == {""}  # nobody drives it, however many ask
        for _ in range(300):
            with hold_lock(folder):  # UserError where a reader held it
                pass
    finally:
        stop.set()
        for reader in readers:
            reader.join()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that everybody may read; pytest's own belong to one user alone."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_colleague_with_read_rights_sees_the_state(shared_folder: Path) -> None:
    """As a user without a passwd entry or the right to write."""
    run_files = RunFiles(str(shared_folder / "run"))
    run_files.begin({"name": "small"})

    def ask() -> str:
        words = [sys.executable, "-c", READ_AS_COLLEAGUE, str(shared_folder / "run")]
        process = subprocess.run(words, capture_output=True, text=True, check=False)
        return process.stdout.strip() or process.stderr

    with run_files.hold_lock():
        assert ask() == "running"
    assert ask() == "interrupted"
