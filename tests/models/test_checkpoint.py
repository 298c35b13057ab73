"""Checkpoints of other people: each form that they have, each kind that is refused, and in which words."""

import argparse
import collections
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from raykd.errors import UserError
from raykd.models import make
from raykd.study.recipe import TeacherSpec
from raykd.training.start import make_started

State = dict[str, Any]
ADVICE = "save the weights by torch.save(model.state_dict(), PATH)"


def load(path: Path) -> State:
    return make_started(TeacherSpec(net="resnet8", weights=str(path)), 10).state_dict()


def error_of(path: Path) -> str:
    """The one line that refuses a file, without the file's name."""
    with pytest.raises(UserError) as error:
        load(path)
    (line,) = error.value.lines
    assert line.startswith(f"teacher resnet8: {path}: ") and len(line) < 400
    return line.removeprefix(f"teacher resnet8: {path}: ")


def add_prefix(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def make_default_dict(state: State) -> Any:
    content = collections.defaultdict(list, {"losses": [1.0]})
    content["state_dict"] = state
    return content


OTHER = make("resnet14", 10).state_dict()  # another net in the same file
FORMS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "RepDistiller": lambda state: {"epoch": 240, "model": state, "best_acc": torch.tensor(72.3)},
    "state_dict": lambda state: {"state_dict": state},
    "net": lambda state: {"net": state, "acc": 93.1, "epoch": 3},
    "model_state_dict": lambda state: {
        "model_state_dict": state,
        "optimizer_state_dict": {
            "state": {0: {"momentum_buffer": torch.zeros(3)}},
            "param_groups": [{"lr": 1}],
        },
    },
    "params": lambda state: {"params": state},
    "model_ema": lambda state: {"model_ema": state},
    "weights and their EMA": lambda state: {
        "model_ema": {name: value + 1 for name, value in state.items()},
        "model": state,
    },
    "SWA": lambda state: {"n_averaged": torch.tensor(3), **add_prefix(state, "module.")},
    "parallel": lambda state: {"model": add_prefix(state, "module.")},
    "compiled": lambda state: add_prefix(state, "_orig_mod."),
    "compiled, parallel": lambda state: add_prefix(state, "module._orig_mod."),
    "parallel, compiled": lambda state: {"model": add_prefix(state, "_orig_mod.module.")},
    "Lightning": lambda state: {"state_dict": add_prefix(state, "model."), "global_step": 9, "loops": {}},
    "a distiller's student": lambda state: {
        "model": {**add_prefix(state, "module.student."), **add_prefix(OTHER, "module.teacher.")}
    },
    "an encoder beside a projector": lambda state: {
        "state_dict": {**add_prefix(state, "encoder."), "projector.weight": torch.zeros(3, 3)}
    },
    "old": lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
    "NumPy scalars": lambda state: {"model": state, "best_acc": np.float64(71.2), "epoch": np.int64(240)},
    "NumPy arrays": lambda state: {
        "model": state,
        "history": np.arange(6.0).reshape(2, 3),
        "done": np.bool_(True),
    },
    "options": lambda state: {
        "model": state,
        "opt": argparse.Namespace(
            lr=0.1, out=pathlib.Path("a/b"), dtype=torch.float16, tags=["x", ("y", None)]
        ),
    },
    "paths": lambda state: {
        "model": state,
        "out": pathlib.Path("out"),
        "pure": pathlib.PureWindowsPath("c:/a"),
    },
    "defaultdict": make_default_dict,
    "OrderedDict": lambda state: collections.OrderedDict(model=collections.OrderedDict(state)),
    "half": lambda state: {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_the_forms_that_people_have(tmp_path: Path, form: str, legacy: bool) -> None:
    state = make("resnet8", 10).half().float().state_dict()
    torch.save(FORMS[form](dict(state)), tmp_path / "t.pth", _use_new_zipfile_serialization=not legacy)
    loaded = load(tmp_path / "t.pth")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    state = make("resnet8", 10).state_dict()
    safetensors.torch.save_file(add_prefix(state, "student."), tmp_path / "t.pth")
    torch.save(state, tmp_path / "t.safetensors")
    for name in ("t.pth", "t.safetensors"):
        loaded = load(tmp_path / name)
        assert all(torch.equal(value, state[key]) for key, value in loaded.items())


REFUSED_VALUES: dict[str, tuple[Any, str]] = {
    "int": (3, f"holds a value of type int, no state_dict: {ADVICE}"),
    "None": (None, f"holds None, no state_dict: {ADVICE}"),
    "list": ([OTHER], f"holds a value of type list, no state_dict: {ADVICE}"),
    "tuple": ((OTHER, 3), f"holds a value of type tuple, no state_dict: {ADVICE}"),
    "tensor": (torch.zeros(2, 3), f"holds one tensor of shape [2, 3], no state_dict: {ADVICE}"),
    "integer keys": ({0: torch.zeros(2)}, f"holds a dictionary of 1 (0) and no weights: {ADVICE}"),
    "no weights": ({"epoch": 3}, f"holds a dictionary of 1 ('epoch') and no weights: {ADVICE}"),
    "empty": ({}, f"holds an empty dictionary and no weights: {ADVICE}"),
    "two": (
        {"student": make("resnet8", 10).state_dict(), "teacher": make("resnet8", 10).state_dict()},
        f"holds weights of this net more than once, under student and teacher: {ADVICE}",
    ),
    "a whole model": (make("resnet8", 10), f"is a whole pickled model: {ADVICE}"),
    "another net": (
        {"state_dict": add_prefix(OTHER, "module.")},
        "not the weights of this net: 0 of its names are missing, 36 (layer1.1.conv1.weight, "
        "layer1.1.bn1.weight, layer1.1.bn1.bias, ...) are unexpected",
    ),
    "other classes": (
        {"model": make("resnet8", 100).state_dict()},
        "its head has 100 classes, the data has 10; head = new draws another, where the net is trained",
    ),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", REFUSED_VALUES)
def test_what_is_no_state_dict_is_named(tmp_path: Path, kind: str, legacy: bool) -> None:
    value, message = REFUSED_VALUES[kind]
    torch.save(value, tmp_path / "t.pth", _use_new_zipfile_serialization=not legacy)
    assert error_of(tmp_path / "t.pth") == message


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
REFUSED_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is an empty file"),
    "text": (b"see the README for the weights\n", f"is text, not weights: {ADVICE}"),
    "JSON": (b'{"abcd":{"a": 1}}', f"is text, not weights: {ADVICE}"),
    "HTML": (
        b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
        "is a page of HTML: the download was not of",
    ),
    "LFS": (LFS, "is a Git LFS pointer: fetch the file itself by git lfs pull"),
    "gzip": (b"\x1f\x8b\x08\x00abc", "is a compressed archive: unpack it"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "is HDF5 (Keras), not weights of torch"),
    "noise": (bytes(range(256)), f"is of no kind that is known here, not weights: {ADVICE}"),
    "plain pickle": (pickle.dumps({"a": 1}), f"is a pickle that torch.save did not write: {ADVICE}"),
    "cut ZIP": (b"PK\x03\x04abc", "is not a readable checkpoint ("),
}


@pytest.mark.parametrize("kind", REFUSED_FILES)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, kind: str) -> None:
    content, message = REFUSED_FILES[kind]
    (tmp_path / "t.pth").write_bytes(content)
    assert error_of(tmp_path / "t.pth").startswith(message)


def test_other_archives_are_named(tmp_path: Path) -> None:
    class Doubled(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 2 * images

    program = torch.export.export(Doubled(), (torch.zeros(2),))
    torch.export.save(program, tmp_path / "program.pt2")
    assert error_of(tmp_path / "program.pt2") == f"is an archive of torch.export: {ADVICE}"
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    assert error_of(tmp_path / "arrays.npz") == f"is a ZIP archive that torch did not write: {ADVICE}"
    with zipfile.ZipFile(
        tmp_path / "script.pt", "w"
    ) as archive:  # as torch.jit.save, deprecated, lays it out
        for name in ("script/data.pkl", "script/code/__torch__.py", "script/constants.pkl", "script/version"):
            archive.writestr(name, b"\x80\x02}.")
    assert error_of(tmp_path / "script.pt") == f"is a TorchScript archive: {ADVICE}"
    assert error_of(tmp_path) == "is a folder"


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, spoilt: float) -> None:
    state = make("resnet8", 10).state_dict()
    state["fc.bias"][3] = spoilt
    torch.save(state, tmp_path / "t.pth")
    assert error_of(tmp_path / "t.pth") == "1 of its tensors hold NaN or infinity (fc.bias)"


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, harm: Path) -> None:
        self.harm = harm

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.harm}",))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, legacy: bool) -> None:
    harm = tmp_path / "harm"
    contents: list[Any] = [Command(harm), {"model": make("resnet8", 10).state_dict(), "opt": Command(harm)}]
    contents.append({"opt": argparse.Namespace(command=Command(harm))})
    contents.append({"best": np.array([Command(harm)], dtype=object)})
    for content, kind in zip(contents, ["posix.system"] * 3 + ["numpy.dtypes.ObjectDType"], strict=True):
        torch.save(content, tmp_path / "t.pth", _use_new_zipfile_serialization=not legacy)
        assert error_of(tmp_path / "t.pth") == f"holds an object of {kind}, whose code is not run: {ADVICE}"
    (tmp_path / "t.pth").write_bytes(pickle.dumps(Command(harm)))
    assert error_of(tmp_path / "t.pth") == f"is a pickle that torch.save did not write: {ADVICE}"
    assert not harm.exists()


def test_what_was_allowed_for_a_file_is_not_allowed_afterwards(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save(FORMS["options"](make("resnet8", 10).state_dict()), tmp_path / "t.pth")
    load(tmp_path / "t.pth")
    assert set(torch.serialization.get_safe_globals()) == before


def test_any_cut_of_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"model": make("resnet8", 10).state_dict(), "best": np.float64(1)}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for length in range(1, len(whole), len(whole) // 40):
        (tmp_path / "t.pth").write_bytes(whole[:length])
        error_of(tmp_path / "t.pth")
