"""What `pip install raykd` gives: the wheel as it is built, in a folder of its own."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: str | Path, folder: Path, path: str = "") -> str:
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_built_wheel_holds_the_studies_and_runs_without_a_clone(tmp_path: Path) -> None:
    source, dist, site = (tmp_path / name for name in ("source", "dist", "site"))
    for name in ("raykd", "studies"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run("-m", "build", "--no-isolation", "--outdir", dist, source, folder=tmp_path)
    files = sorted(dist.iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"]
    run("-m", "twine", "check", "--strict", *files, folder=tmp_path)
    zipfile.ZipFile(files[0]).extractall(site)  # a wheel of pure Python is installed by this
    names = {path.relative_to(ROOT / "studies") for path in (ROOT / "studies").rglob("*.yaml")}
    assert {path.relative_to(site / "raykd/studies") for path in site.rglob("*.yaml")} == names
    assert not list(site.rglob("tests"))
    shown = run("-m", "raykd", "studies", "quickstart", folder=tmp_path, path=str(site))
    assert shown == (ROOT / "studies/quickstart.yaml").read_text()
    words = ("plan", "quickstart", "--images-per-second", "1000", "--json")
    assert '"trials": 12' in run("-m", "raykd", *words, folder=tmp_path, path=str(site))
