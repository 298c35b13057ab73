"""The command line in odd surroundings: they were tried and are fine, and stay so."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from raykd.store.run_files import RunFiles
from raykd.study.study import Study

DEAD_PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
ODD = DEAD_PROXIES | {"TZ": "No/Where", "LC_ALL": "C", "PATH": os.environ["PATH"]}  # and no HOME


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def run_verb(shell_words: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`raykd` with words, and a shell's redirections behind them."""
    command = f'exec "$0" -m raykd "$@" {shell_words}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, *words], env=environment or dict(os.environ),
        capture_output=True, text=True, check=False, preexec_fn=limit_files,
    )  # fmt: skip


@pytest.fixture
def run_files(small: Path, tmp_path: Path) -> RunFiles:
    """A run that was moved, into a folder of another kind of name."""
    run_files = RunFiles(str(tmp_path / "runs/small"))
    run_files.begin(Study.read(small, ()).to_dict())
    moved = tmp_path / "an é and spaces/moved"
    moved.parent.mkdir()
    (tmp_path / "runs/small").rename(moved)
    return RunFiles(str(moved))


@pytest.mark.slow
def test_a_status_needs_no_network_home_time_zone_locale_or_many_files(run_files: RunFiles) -> None:
    done = run_verb("", "status", run_files.folder.uri, **ODD)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("small (dcd): interrupted")


@pytest.mark.slow
def test_the_methods_are_listed_there_too() -> None:
    done = run_verb("", "methods", **ODD)
    assert (done.returncode, done.stderr) == (0, "") and "msdcrd" in done.stdout


def test_nobody_reads_what_is_printed(run_files: RunFiles) -> None:
    done = run_verb(">&-", "status", run_files.folder.uri)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output_is_one_line(run_files: RunFiles) -> None:
    done = run_verb(">/dev/full", "status", run_files.folder.uri)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "No space left" in done.stderr


def test_a_run_that_cannot_be_written_can_be_read(run_files: RunFiles) -> None:
    """As on a read-only mount; root may write all the same, so that nothing changed is asked."""
    root = Path(run_files.folder.uri)
    (root / "driver.lock").write_text("")
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    root.chmod(0o555)
    for path in files:
        path.chmod(0o444)
    assert run_verb("", "status", str(root)).returncode == 0
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    assert after == files
    root.chmod(0o755)
