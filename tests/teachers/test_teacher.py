"""A teacher's file: what is refused and how. What a file may hold: test_checkpoint.py."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from raykd.errors import UserError
from raykd.models import make
from raykd.teachers import teacher


def load(path: Path, net: str = "resnet8", classes: int = 100, sha256: str | None = None) -> Any:
    return teacher.load(net, str(path), classes, sha256, path.parent)


def error_of(path: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        load(path, **settings)
    (line,) = error.value.lines
    return line


def test_an_error_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pth"
    assert "no such file" in error_of(path)
    torch.save({"model": make("resnet8", 10).state_dict()}, path)
    assert "10 classes" in error_of(path)
    assert "resnet20" in error_of(path, net="resnet20")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "not a readable checkpoint" in error_of(path)
    assert "SHA-256" in error_of(path, sha256="0" * 64)
    safetensors.torch.save_file(make("resnet8", 100).state_dict(), tmp_path / "cut.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(cut.read_bytes()[:5000])
    assert "not a readable checkpoint" in error_of(cut)
