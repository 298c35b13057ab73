"""Ray sessions: one that cannot start or dies is a line, one that is the user's stays as it was."""

import inspect
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from support.run_files import read_epochs, wait_for

from raykd.driver import session, session_watch
from raykd.driver.local_session import AUTH_VARIABLES
from raykd.driver.session_watch import ClusterError
from raykd.driver.surroundings import preserve_surroundings
from raykd.driver.trainables import release_memory
from raykd.store.folder import Folder
from raykd.store.run_files import RunFiles

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc, and glibc's malloc_trim")


def test_a_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", "1")
    handler = signal.getsignal(signal.SIGTERM)
    logging.getLogger("ray").setLevel(logging.WARNING)
    with preserve_surroundings():
        os.environ.update(session.RAY_ENV)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        logging.getLogger("ray.made_inside").setLevel(logging.CRITICAL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert os.environ["TUNE_DISABLE_SIGINT_HANDLER"] == "1" and "RAY_AIR_NEW_OUTPUT" not in os.environ
    assert logging.getLogger("ray").level == logging.WARNING
    assert logging.getLogger("ray.made_inside").level == logging.NOTSET
    assert signal.getsignal(signal.SIGTERM) is handler


def test_ray_that_does_not_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_ray_session: None
) -> None:
    """Ray raises a plain Exception when its node is slow to start, or its raylet dies meanwhile."""

    def start(**settings: Any) -> None:
        raise Exception("The current node timed out during startup.\nMore of it.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", start)
    environment = dict(os.environ)
    with pytest.raises(ClusterError) as error, session.connect(None, Folder(str(tmp_path))):
        pytest.fail("it did not start")
    assert str(error.value) == "Ray did not start on this machine: The current node timed out during startup."
    assert dict(os.environ) == environment


@on_linux
def test_a_gcs_that_dies_while_ray_waits_for_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_ray_session: None
) -> None:
    shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "gcs_server")
    gcs, output = subprocess.Popen([tmp_path / "gcs_server", "600"]), ""

    def is_said() -> bool:
        nonlocal output
        output += capsys.readouterr().err
        return bool(output)

    with session_watch.watch_start("go on so", limit=0.2):
        wait_for(lambda: psutil.Process(gcs.pid).name() == "gcs_server")
        time.sleep(0.2)  # in which it is seen
        gcs.kill()
        gcs.wait()
        wait_for(is_said, 20)
    assert output == "raykd: Ray's GCS (its head process) died while Ray started; go on so\n"


@on_linux
def test_freed_memory_goes_back_to_the_system() -> None:
    """By glibc's malloc_trim: it exists, and gives back what Python has freed."""
    process = psutil.Process()
    blocks = [bytes(100_000) for _ in range(2000)]  # below malloc's own threshold for memory of the system
    held = process.memory_info().rss
    del blocks[:-1]  # the last one keeps the heap's top
    release_memory()
    assert process.memory_info().rss < held - 100_000_000


OWN_SESSION = """
import logging, os, signal, sys
import ray, raykd
from raykd.driver.session import connect
from raykd.errors import UserError
from raykd.study.study import Study

def describe_process():
    levels = {name: logging.getLogger(name).level for name in ("ray", "ray.tune", "ray.train")}
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}
    return environment, levels, [signal.getsignal(number) for number in numbers]

settings = dict(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
ray.init("local", **settings)  # without an address Ray joins a cluster of another test beside it
signal.signal(signal.SIGTERM, lambda *_: None)
before = describe_process()
try:
    with connect("10.0.0.1:6379"):
        raise SystemExit("joined another cluster")
except UserError as error:
    assert "this process has a Ray session at" in str(error), error
run = raykd.launch(Study.read(sys.argv[1], ("budget/trials=1",)))
assert run.trials()["state"].to_pylist() == ["COMPLETE"]
after = describe_process()
assert before == after, (before, after)
assert ray.is_initialized() and ray.get(ray.remote(lambda: 5).remote()) == 5
"""


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_session_that_the_process_has_is_used_and_left_alone(small: Path, tmp_path: Path) -> None:
    own = ("RAY_ADDRESS", *AUTH_VARIABLES)  # as a user has them: not set
    environment = {name: value for name, value in os.environ.items() if name not in own}
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", OWN_SESSION, str(small)], cwd=tmp_path, check=False, capture_output=True,
        text=True, env=environment | {"PYTHONPATH": tests},
    )  # fmt: skip
    assert done.returncode == 0 and "tune.py" not in done.stderr, done.stderr


def test_what_ray_prints_of_a_dead_raylet_is_known() -> None:
    """Fails when Ray says it in other words, of which its switch for unwanted lines must then be told."""
    from ray._private.process_watcher import report_raylet_error_logs

    pattern = session.RAY_ENV["RAY_DEDUP_LOGS_SKIP_REGEX"].removeprefix("^")
    assert f'"{pattern}' in inspect.getsource(report_raylet_error_logs)


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY")
ODD = dict.fromkeys(PROXIES, "http://127.0.0.1:9") | {"TZ": "No/Where", "LC_ALL": "C"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_run_the_drivers_code_and_a_dead_gcs_is_a_line(small: Path, tmp_path: Path) -> None:
    """Launched from a folder with other packages of the same names, behind dead proxies, in no time zone."""
    for name in ("raykd/__init__.py", "torch/__init__.py", "statistics.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('code of the current folder')")
    words = [sys.executable, "-P", "-m", "raykd", "launch", str(small), "--set", "epochs=200"]
    log = tmp_path / "output"  # no pipe: Ray's agents hold it for a minute after their raylet
    with log.open("w") as file:
        driver = subprocess.Popen(
            words, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | ODD,
        )  # fmt: skip
    try:
        wait_for(lambda: driver.poll() is not None or bool(read_epochs(tmp_path / "runs/small", 0)))
        assert driver.poll() is None, log.read_text()
        (gcs,) = (child for child in psutil.Process(driver.pid).children() if child.name() == "gcs_server")
        gcs.kill()
        driver.wait(60)
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    run_files = RunFiles(str(tmp_path / "runs/small"))
    output = log.read_text()
    assert driver.returncode == 1 and run_files.state() == "interrupted"
    last_line = output.strip().splitlines()[-1]
    assert output.splitlines()[0].split("s  ")[1].startswith("a trial takes ")
    assert "Ray's GCS (its head process) at" in last_line and "Traceback" not in output
    assert last_line.endswith(f"nothing is lost. Go on with: raykd resume {run_files.folder.uri}")
