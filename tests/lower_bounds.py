"""Installs the lowest version of every dependency that pyproject.toml allows and runs tests against it.

    python tests/lower_bounds.py [FOLDER] [PYTEST WORDS ...]

FOLDER takes the environment (default: a temporary one; one that is there is used again). Without words the
quick tests run. CI does not run this: it installs another PyTorch of about 6 GB.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def lowest(requirement: Requirement) -> str:
    """Returns the requirement pinned to its lower bound."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
    return f"{requirement.name}{extras}=={bound}"


def list_pins() -> list[str]:
    """Returns every dependency at its lower bound, test and export extras included; tools that only check
    the code (ruff, mypy, import-linter) too.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    requirements = [Requirement(line) for line in lines]
    return sorted({lowest(item) for item in requirements if item.name != project["name"]})


def main() -> int:
    """Returns pytest's exit code."""
    words = sys.argv[1:]
    folder = Path(words.pop(0)) if words else Path(tempfile.mkdtemp(prefix="raykd-lower-bounds-"))
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = list_pins()
    print("\n".join(pins), flush=True)
    subprocess.run([*pip, *pins], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)], check=True)
    return subprocess.run(
        [str(python), "-m", "pytest", *(words or ["-m", "not slow"])], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
