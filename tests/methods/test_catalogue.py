"""What is said of each method, and its study files: planned without data, banks counted."""

from pathlib import Path

import pytest

from raykd import methods, models
from raykd.errors import BadInput
from raykd.methods._catalogue import catalogue, entry
from raykd.planning.plan import plan
from raykd.spec import declared
from raykd.study.study import Study
from raykd.training.distiller import check
from raykd.training.trainer import LARGE

STUDIES = Path(__file__).parents[2] / "studies"
IMAGENET = 1_281_167


def test_the_list_says_status_needs_ranges_and_paper() -> None:
    rows = catalogue()
    assert [row["name"] for row in rows] == list(methods.names())
    for row in rows:
        assert set(row) == {"name", "status", "needs", "searched", "paper"}
        assert row["searched"] == len(declared(methods.config(row["name"])))


@pytest.mark.parametrize("name", methods.names())
def test_a_method_is_told_in_full(name: str) -> None:
    told = entry(name)
    assert len(told["text"].splitlines()) > 0 and (name == "ce" or "arXiv:" in told["paper"] + told["text"])
    assert told["status"] != "reconstruction" or "This is a reconstruction" in told["text"]
    for field in told["fields"]:
        assert field["range"] and (field["paper"] is not None or field["when"]), field
    assert all(row["method"] == name and row["source"] for row in told["published"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in methods.names() if name != "ce"])
def test_a_method_has_its_four_studies_and_they_plan_without_data(name: str, tmp_path: Path) -> None:
    pairs = {
        f"cifar100/{name}": ("wrn_40_2", "wrn_16_2"),
        f"cifar100/{name}-hetero": ("resnet32x4", "ShuffleV1"),
        f"imagenet/{name}": ("resnet34", "resnet18"),
        f"imagenet/{name}-MobileNetV1": ("resnet50", "MobileNetV1"),
    }
    for file, nets in pairs.items():
        study = Study.read(STUDIES / f"{file}.yaml")
        assert study.recipe.teacher is not None
        assert (study.recipe.teacher.net, study.recipe.student.net) == nets
        made = plan(study, tmp_path, False)
        assert made.not_measured and made.space and made.bank_bytes < 1.5e9
        assert name not in ("crd", "wcord") or made.bank_bytes > 0


@pytest.mark.parametrize("name", ["crd", "wcord"])
def test_banks_for_imagenet_fit_and_are_kept_out_of_checkpoints(name: str) -> None:
    study = Study.read(STUDIES / "imagenet" / f"{name}.yaml")
    lesson = check(study.recipe, 1000, 224, IMAGENET)
    banks = {
        key: value.numel() * value.element_size()
        for key, value in lesson.method.named_buffers()
        if "." in key
    }
    large = {key: size for key, size in banks.items() if size > LARGE}
    assert set(large) == {"memory.student", "memory.teacher"}
    assert sum(banks.values()) < 1.5e9 and sum(large.values()) == 2 * IMAGENET * 128 * 4


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        (
            "cifar100/pckd.yaml",
            "student/net=ShuffleV1",
            "class centres of 960 .* and 128 .*weights/centre = 0",
        ),
        ("cifar100/sskd.yaml", "data/rotations=1", "sskd needs data/rotations = 4, but it is 1"),
        ("cifar100/at.yaml", "student/net=vgg8", "stages cannot be paired"),
    ],
)
def test_what_a_method_cannot_serve_is_said_before_anything_trains(
    file: str, change: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        plan(Study.read(STUDIES / file, (change,)), tmp_path, False)
    assert len(caught.value.lines) == 1


@pytest.mark.slow
def test_simkd_serves_any_two_nets(tmp_path: Path) -> None:
    for net in models.names():
        study = Study.read(STUDIES / "cifar100" / "simkd.yaml", (f"student/net={net}",))
        assert plan(study, tmp_path, False).method_parameters > 0
