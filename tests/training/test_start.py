"""What a net begins with: files, URLs, a library's weights, new heads; what is refused and how.

What a file may hold: tests/models/test_checkpoint.py.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.small_trainer import CPU, comparable_metrics, make_trainer, recipe

import raykd
from raykd import data
from raykd.contract import gloo
from raykd.driver.confirm import make_control, make_retraining_recipe
from raykd.errors import UserError
from raykd.models import make
from raykd.study.nets import NetSpec, StudentSpec
from raykd.study.recipe import Recipe, TeacherSpec, make_teacher_recipe, make_teacher_recipes
from raykd.study.starts import describe_start
from raykd.study.study import Study
from raykd.teachers.teacher import NoTeacher
from raykd.training import failure, trial
from raykd.training.start import make_started, pin_weights, read_start
from raykd.training.trainer import Trainer

CE: dict[str, Any] = {"method": {"name": "ce"}, "teacher": None}


def error_of(path: Path, classes: int = 100, **settings: Any) -> str:
    spec = TeacherSpec(**{"net": "resnet8", "weights": str(path)} | settings)
    with pytest.raises(UserError) as error:
        make_started(spec, classes)
    (line,) = error.value.lines
    return line


def save(path: Path, net: str = "resnet8", classes: int = 10, seed: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    state = make(net, classes).state_dict()
    torch.save({"model": state}, path)
    return state


def test_an_error_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pth"
    assert "no such file" in error_of(path)
    save(path)
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student": {"net": "resnet8", "head": "new"}}, "recipe/student: sha256 and head are of weights"),
        ({"student": {"net": "resnet8", "weights": "pretrained"}}, "no library publishes weights of resnet8"),
        ({"student": {"net": "resnet8", "weights": "http://host/s.pth"}}, "need their sha256"),
        ({"student": {"net": "resnet8", "weights": "$NOT_SET/s.pth"}}, "$NOT_SET is not set"),
        ({"teacher": {"net": "resnet8"}}, "recipe/teacher: say weights (a checkpoint), train"),
        (
            {"teacher": {"net": "resnet8", "weights": "t.pth", "head": "new"}},
            "a new classifier knows nothing",
        ),
    ],
)
def test_a_start_that_cannot_be_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    plain = {"name": "s", "recipe": recipe().to_dict() | settings}
    with pytest.raises(UserError) as error:
        Study.parse(plain, "study.yaml")
    (line,) = error.value.lines
    assert message in line


def make_started_trainer(start: dict[str, torch.Tensor], **student: Any) -> Trainer:
    settings = recipe(student={"net": "resnet8", "weights": "unused"} | student, **CE)
    dataset = data.load(settings.data, Path("unused"), False)
    return Trainer(settings, dataset, NoTeacher(), CPU, [start])


def test_a_student_begins_with_the_weights(tmp_path: Path) -> None:
    state = save(tmp_path / "s.pth")
    start = read_start(StudentSpec(net="resnet8", weights=str(tmp_path / "s.pth")), make("resnet8", 10))
    trainer = make_started_trainer(start)
    for net in (trainer.student, trainer.ema_student):
        torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)


def test_a_new_head_is_the_seeds_own_and_all_else_the_files(tmp_path: Path) -> None:
    state = save(tmp_path / "s.pth", classes=100)
    spec = StudentSpec(net="resnet8", weights=str(tmp_path / "s.pth"), head="new")
    begun = make_started_trainer(read_start(spec, make("resnet8", 10)), head="new").student.state_dict()
    random = make_trainer(recipe(**CE)).student.state_dict()
    assert begun.keys() == state.keys()
    for name, value in begun.items():
        expected = random if name.startswith("fc.") else state
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    headless = {name: value for name, value in state.items() if not name.startswith("fc.")}
    torch.save({f"module.{name}": value for name, value in headless.items()}, tmp_path / "s.pth")
    assert read_start(spec, make("resnet8", 10)).keys() == headless.keys()  # of a net that never had classes


def run_trial(folder: Path, weights: Path, stop_after: int | None = None) -> list[dict[str, Any]]:
    settings = recipe(student={"net": "resnet8", "weights": str(weights)}, epochs=2, **CE)
    rows: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        rows.append(row)
        if len(rows) == stop_after:
            raise failure.ReporterGone("killed")

    trial.run(trial.Job(settings.to_dict(), str(folder), (), "unused", False, 1), report, CPU)
    return [*map(comparable_metrics, rows)]


@pytest.mark.slow
def test_a_trial_goes_on_from_its_checkpoint_and_not_from_its_start(tmp_path: Path) -> None:
    weights = tmp_path / "s.pth"
    save(weights)
    whole = run_trial(tmp_path / "whole", weights)
    with pytest.raises(failure.ReporterGone):
        run_trial(tmp_path / "killed", weights, stop_after=1)
    weights.unlink()
    assert run_trial(tmp_path / "killed", weights)[-1] == whole[-1]
    with pytest.raises(UserError, match="no such file"):
        run_trial(tmp_path / "anew", weights)


def test_controls_retrainings_and_the_teachers_training_have_the_start(tmp_path: Path) -> None:
    save(tmp_path / "s.pth")
    save(tmp_path / "t.pth", "resnet14", classes=100)
    given = recipe(
        student={"net": "resnet8", "weights": str(tmp_path / "s.pth")},
        teacher={
            "net": "resnet14",
            "weights": str(tmp_path / "t.pth"),
            "head": "new",
            "train": {"epochs": 1},
        },
    )
    pinned = pin_weights(given, download=False)
    assert pinned.student.sha256 == hashlib.sha256((tmp_path / "s.pth").read_bytes()).hexdigest()
    assert make_control(pinned, "ce").student == pinned.student
    assert make_retraining_recipe(pinned, 2).student == pinned.student
    teacher = make_teacher_recipe(pinned, pinned.list_teachers()[0]).student
    assert (teacher.weights, teacher.head) == (str(tmp_path / "t.pth"), "new") and teacher.sha256
    [trained] = [t.with_weights("/storage/teachers/t.safetensors") for t in pinned.list_teachers()]
    assert trained == TeacherSpec(net="resnet14", weights="/storage/teachers/t.safetensors")
    save(tmp_path / "s.pth", seed=4)
    with pytest.raises(UserError, match=f"expected {pinned.student.sha256}"):
        read_start(pinned.student, make(pinned.student.net, 10))


def fine_tune(settings: Recipe, folder: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    trial.run(trial.Job(settings.to_dict(), folder, (), "unused", False, 1), rows.append, CPU)
    return comparable_metrics(rows[-1])


@pytest.mark.slow
def test_two_workers_fine_tune_a_teacher_as_one_that_accumulates_twice(tmp_path: Path) -> None:
    start = save(tmp_path / "t.pth", classes=100)
    train = {"epochs": 1, "optimizer": {"batch_size": 32, "lr": 1e-4}}
    given = {"net": "resnet8", "weights": str(tmp_path / "t.pth"), "head": "new", "train": train}
    (teacher,) = make_teacher_recipes(recipe(teacher=given))
    twice = teacher.optimizer.model_dump(mode="json") | {"accumulate": 2}
    alone = fine_tune(teacher.with_settings({"optimizer": twice}), str(tmp_path / "alone"))
    together = gloo.run(fine_tune, teacher, str(tmp_path / "together"))
    assert together[0] == together[1] and together[0]["terms"] == pytest.approx(alone["terms"], rel=1e-5)
    trained, expected = (
        safetensors.torch.load_file(tmp_path / name / "student.safetensors") for name in ("together", "alone")
    )
    for name, value in trained.items():
        if "running" not in name:  # which come about otherwise
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
            assert name.startswith("fc.") or value.allclose(start[name], atol=1e-2), name


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_weights_with_nan_are_refused_by_launch_before_anything_begins(
    tmp_path: Path, small: Path, role: str
) -> None:
    state = save(tmp_path / "bad.pth")
    state["fc.bias"][3] = float("nan")
    torch.save(state, tmp_path / "bad.pth")
    settings = (f"{role}/net=resnet8", f"{role}/weights={tmp_path / 'bad.pth'}")
    with pytest.raises(UserError) as error:
        raykd.launch(Study.read(small, settings), storage=str(tmp_path / "runs"))
    assert error.value.lines == [
        f"{role} resnet8: {tmp_path / 'bad.pth'}: 1 of its tensors hold NaN or infinity (fc.bias)"
    ]
    assert not (tmp_path / "runs").exists()


class Server(ThreadingHTTPServer):
    """Serves a folder on loopback and counts what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))


class Handler(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", "0" * 40)  # what a client of a model hub asks for
        self.send_header("ETag", '"0123456789abcdef"')
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        assert isinstance(self.server, Server)
        self.server.paths.append(self.path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_url_is_fetched_once_by_its_hash_and_another_hash_is_refused(
    server: Server, tmp_path: Path
) -> None:
    state = save(tmp_path / "served/s.pth")
    sha256 = hashlib.sha256((tmp_path / "served/s.pth").read_bytes()).hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/s.pth"
    spec = StudentSpec(net="resnet8", weights=url, sha256=sha256)
    for _ in range(2):
        torch.testing.assert_close(
            read_start(spec, make("resnet8", 10), tmp_path / "cache"), state, rtol=0, atol=0
        )
    assert server.paths == ["/s.pth"] and (tmp_path / f"cache/weights/{sha256}/s.pth").is_file()
    for weights, sha in ((url, "0" * 64), (url.replace("s.pth", "other.pth"), sha256)):
        with pytest.raises(UserError) as error:
            read_start(
                StudentSpec(net="resnet8", weights=weights, sha256=sha),
                make("resnet8", 10),
                tmp_path / "other",
            )
        assert error.value.lines[0].startswith(f"student resnet8: {weights}: could not be fetched (")


def test_pretrained_weights_are_fetched_with_download_alone_and_then_kept_by_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision finds the file where its own download would have left it."""
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    state, name = make("resnet18", 1000).state_dict(), ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "torch/hub/checkpoints" / name)
    settings = recipe(student={"net": "resnet18", "weights": "pretrained", "head": "new"}, **CE)
    with pytest.raises(UserError, match=r"student resnet18: pretrained: not in .* without --download"):
        pin_weights(settings, download=False)
    pinned = pin_weights(settings, download=True)
    (kept,) = (tmp_path / "cache/weights/resnet18").iterdir()
    assert kept.name == f"{pinned.student.sha256}.safetensors"
    (tmp_path / "torch/hub/checkpoints" / name).unlink()
    assert pin_weights(settings, download=False) == pinned
    start = read_start(pinned.student, make(pinned.student.net, 10))
    assert (
        torch.equal(start["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"]) and "fc.bias" not in start
    )
    assert f"pretrained, SHA-256 {kept.stem[:12]}, new head" == describe_start(pinned.to_dict()["student"])


PIN = """
import sys
from raykd.study.recipe import Recipe
from raykd.training.start import pin_weights
print(pin_weights(Recipe.model_validate_json(sys.argv[1]), download=True).student.sha256)
"""


@pytest.mark.slow
def test_timms_weights_are_fetched_through_its_own_client_and_then_kept_by_hash(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a hub on loopback, which its client learns of when it is imported."""
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    net = {"net": "timm/resnet10t.c3_in1k", "weights": "pretrained", "head": "new"}
    settings = recipe(student=net, **CE)
    with pytest.raises(
        UserError, match=r"^student timm/resnet10t.c3_in1k: pretrained: .* without --download"
    ):
        pin_weights(settings, download=False)
    served = tmp_path / "served/timm/resnet10t.c3_in1k/resolve/main"
    served.mkdir(parents=True)
    state = make("timm/resnet10t", 1000).state_dict()
    safetensors.torch.save_file(state, served / "model.safetensors")
    places = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", PIN, json.dumps(settings.to_dict())]
    done = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "cache/weights/timm--resnet10t.c3_in1k").iterdir()
    sha256 = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert kept.name == f"{sha256}.safetensors" and done.stdout.strip() == sha256 and server.paths
    asked = len(server.paths)
    pinned = pin_weights(settings, download=False)
    assert pinned.student.sha256 == sha256 and len(server.paths) == asked
    start = read_start(pinned.student, make(pinned.student.net, 10))
    headless = {name: value for name, value in state.items() if not name.startswith("fc.")}
    torch.testing.assert_close(start, headless, rtol=0, atol=0)


def test_a_start_is_named_without_its_path() -> None:
    assert describe_start({"net": "resnet8"}) == "random"
    spec = NetSpec(net="resnet8", weights="/home/me/s.pth")
    assert describe_start(spec.model_dump()) == "s.pth"
