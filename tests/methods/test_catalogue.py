"""What is said of each method, and its study files: planned without data, banks counted."""

from pathlib import Path

import pytest

from raykd import methods, models
from raykd.cli.output.tables import print_methods
from raykd.errors import UserError
from raykd.methods._catalogue import describe, list_methods
from raykd.planning.plan import PlanOptions, make_plan
from raykd.spec import collect_dimensions
from raykd.study.study import Study
from raykd.training.distiller import build_on_meta
from raykd.training.trainer import LARGE_BANK_BYTES

STUDIES = Path(__file__).parents[2] / "studies"
IMAGENET = 1_281_167
BANKS = {
    "crcd": "feature.bank.memory",
    "crd": "memory",
    "mcl_okd": "banks",
    "wcord": "memory",
}  # where a method keeps them


def test_the_list_says_status_needs_ranges_and_paper() -> None:
    rows = list_methods()
    assert [row["name"] for row in rows] == list(methods.names())
    for row in rows:
        assert set(row) == {"name", "origin", "status", "needs", "num_ranges", "paper"}
        assert row["num_ranges"] == len(collect_dimensions(methods.get_config_class(row["name"])))


@pytest.mark.parametrize("name", methods.names())
def test_a_method_is_described_in_full(name: str) -> None:
    entry = describe(name)
    assert len(entry["text"].splitlines()) > 0 and (
        name == "ce" or "arXiv:" in entry["paper"] + entry["text"]
    )
    assert entry["status"] != "reconstruction" or "This is a reconstruction" in entry["text"]
    for field in entry["fields"]:
        assert field["range"] and (field["paper"] is not None or field["conditions"]), field
    assert all(row["method"] == name and row["source"] for row in entry["published"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in methods.names() if name != "ce"])
def test_what_a_comparison_with_a_paper_must_know_is_said_with_its_setting(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = describe(name)
    settings = [note["setting"] for note in entry["notes"] if note["setting"]]
    assert {"precision=float32", "ema_decay=0.0", "data/holdout=0.0"} <= set(settings)
    assert ("method/sampling=per_sample" in settings) == (name in BANKS)
    study = Study.read(STUDIES / "cifar100" / f"{name}.yaml")
    changed = Study.read(STUDIES / "cifar100" / f"{name}.yaml", tuple(settings)).recipe
    assert changed.precision == "float32" and changed.ema_decay == 0 and changed.data.holdout == 0
    parameters = build_on_meta(study.recipe, 100, 32, 45_000).method.named_parameters()
    has_scalars = any(parameter.ndim == 0 for _, parameter in parameters)
    assert changed.optimizer.decay_scalars == has_scalars
    print_methods(entry)
    printed = capsys.readouterr().out
    assert all(note["note"] in printed and note["setting"] in printed for note in entry["notes"])


# of nets that learn together or are mixed, or of several teachers
ONE_STUDY = ("blockkd", "dml", "iakd", "latentbe", "lmcl", "mcl", "mcl_okd")
FOR_TEACHERS = ("intra_class",)  # methods of a teacher's own training: a study of KD has it


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STUDY)
def test_nets_that_learn_together_have_studies_that_plan_without_data(name: str, tmp_path: Path) -> None:
    paths = list(STUDIES.glob(f"*/{name}.yaml"))
    assert len(paths) == 2 - (name == "latentbe")
    for path in paths:
        study = Study.read(path)
        plan = make_plan(study, PlanOptions(tmp_path, images_per_second=1000))
        assert plan.space and plan.method_parameters > 0 and plan.bank_bytes < 1.5e9


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in methods.names() if name not in ("ce", *ONE_STUDY, *FOR_TEACHERS)]
)
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
        plan = make_plan(study, PlanOptions(tmp_path, images_per_second=1000))
        assert plan.space and plan.bank_bytes < 1.5e9
        assert name not in BANKS or plan.bank_bytes > 0


@pytest.mark.parametrize("name", [name for name in BANKS if name not in ONE_STUDY])
def test_banks_for_imagenet_fit_and_are_kept_out_of_checkpoints(name: str) -> None:
    study = Study.read(STUDIES / "imagenet" / f"{name}.yaml")
    distiller = build_on_meta(study.recipe, 1000, 224, IMAGENET)
    banks = {
        key: value.numel() * value.element_size()
        for key, value in distiller.method.named_buffers()
        if "." in key
    }
    large = {key: size for key, size in banks.items() if size > LARGE_BANK_BYTES}
    assert set(large) == {f"{BANKS[name]}.student", f"{BANKS[name]}.teacher"}
    assert sum(banks.values()) < 1.5e9 and sum(large.values()) == 2 * IMAGENET * 128 * 4


@pytest.mark.parametrize(
    ("file", "change", "message"),
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
    file: str, change: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_plan(Study.read(STUDIES / file, (change,)), PlanOptions(tmp_path, images_per_second=1000))
    assert len(caught.value.lines) == 1


@pytest.mark.slow
def test_simkd_serves_any_two_nets(tmp_path: Path) -> None:
    for net in models.names():
        study = Study.read(STUDIES / "cifar100" / "simkd.yaml", (f"student/net={net}",))
        assert make_plan(study, PlanOptions(tmp_path, images_per_second=1000)).method_parameters > 0
