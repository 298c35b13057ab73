"""What tests share: a data root with the real data sets where they lie beside the project, small studies,
the verbs.
"""

import os
import secrets
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

SHARED = Path(__file__).parents[2] / "shared" / "data"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  beside others they starve at 15
os.environ["RAY_AUTH_MODE"] = "token"  # Ray's core keeps a process's first mode: no session has another
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ["OMP_NUM_THREADS"] = "1"  # two cores: tests of small tensors only lose by sharing them

SMALL = """
name: small
recipe:
  data: {name: digits, images: 320, holdout: 0.2}
  teacher: {net: resnet14, weights: TEACHER}
  student: {net: resnet8}
  method: {name: dcd}
  epochs: 3
  optimizer: {batch_size: 32}
space:
  optimizer/lr: {low: 0.02, high: 0.2, log: true}
search: {pruner: {kind: none}}
budget: {trials: 3}
confirm: null
"""


LAUNCH = """
import sys, raykd
from raykd.study.study import Study
raykd.launch(Study.read(sys.argv[1], tuple(sys.argv[3:])), address=sys.argv[2] or None)
"""


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real data sets take seconds to unpack and read: their tests are slow ones.

    Those without the shared Ray session come first: they would end it, and it be started again.
    """
    fixtures = {item: set(getattr(item, "fixturenames", ())) for item in items}
    items.sort(key=lambda item: not {"no_ray_session", "cluster"} & fixtures[item])
    for item in items:
        if "data_root" in fixtures[item]:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Teachers' caches of the tests, for the processes that they start too."""
    os.environ["RAYKD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-100, photographs and a small Tiny-ImageNet, unpacked once for all of pytest-xdist's processes."""
    if not (SHARED / "unpack.py").is_file():
        pytest.skip("the real data sets do not lie in ../shared/data")
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "data"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            partial = root.with_name("partial")
            words = [sys.executable, str(SHARED / "unpack.py"), str(partial)]
            subprocess.run(words, check=True, capture_output=True)
            partial.rename(root)
    return root


@dataclass(frozen=True)
class Completed:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Completed]:
    """Runs the command line in this process, in tmp_path. What is to be killed is started by `start_verb`."""
    from raykd.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Completed:
        monkeypatch.setattr(sys, "argv", ["raykd", *words])
        capsys.readouterr()
        code: object = 0
        handler = signal.getsignal(signal.SIGINT)
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        assert isinstance(code, int)
        assert signal.getsignal(signal.SIGINT) is handler  # Ctrl-C is the caller's again
        return Completed(code, *capsys.readouterr())

    return call


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A study that runs in seconds; its teacher has learnt nothing."""
    import torch

    from raykd.models import make

    path = tmp_path / "small.yaml"
    torch.manual_seed(0)
    torch.save(make("resnet14", 10).state_dict(), tmp_path / "teacher.pth")
    path.write_text(SMALL.replace("TEACHER", str(tmp_path / "teacher.pth")))
    return path


@pytest.fixture
def ray_session() -> str:
    """One Ray session for all tests of this process that drive a study in it, which takes seconds to start.

    Returns its address, for drivers in processes of their own. It stays until the process ends; what needs
    none, or a cluster of its own, asks for `no_ray_session`.
    """
    import ray

    from raykd.driver import session
    from raykd.driver.surroundings import preserve_surroundings

    if not ray.is_initialized():
        with preserve_surroundings(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.environ.update(session.RAY_ENV)
            session.init_ray(None)
    address: str = ray.get_runtime_context().gcs_address
    return address


@pytest.fixture
def no_ray_session() -> None:
    """Ends the session that other tests of this process share, if there is one."""
    if (ray := sys.modules.get("ray")) is not None:
        ray.shutdown()


@pytest.fixture
def start_python(tmp_path: Path) -> Start:
    """Starts Python in the background in tmp_path, a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture
def start_verb(
    start_python: Start,
) -> Start:
    """Starts the command line in the background."""
    return partial(start_python, "-m", "raykd")


@pytest.fixture
def start_study(
    start_python: Start,
) -> Start:
    """Starts a study in the background, without its report: (study file, address or "", settings ...)."""
    return partial(start_python, "-c", LAUNCH)
