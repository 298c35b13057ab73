"""Checkpoints: what loads, what is refused and how, and that no code of theirs runs."""

import pickle
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


def test_the_forms_of_published_checkpoints(tmp_path: Path) -> None:
    state = make("resnet8", 100).state_dict()
    forms = {
        "repdistiller.pth": {"epoch": 240, "model": state},
        "parallel.pth": {"model": {f"module.{k}": v for k, v in state.items()}},
        "bare.pth": state,
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
    safetensors.torch.save_file(state, tmp_path / "own.safetensors")
    for name in (*forms, "own.safetensors"):
        loaded = load(tmp_path / name).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())


class Villain:
    def __reduce__(self) -> Any:
        return (Path("harm").touch, ())


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Villain()}, tmp_path / "evil.pth")
    assert "not a readable checkpoint" in error_of(tmp_path / "evil.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Villain()))
    assert "not a readable checkpoint" in error_of(tmp_path / "raw.pth")
    assert not (tmp_path / "harm").exists()


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
