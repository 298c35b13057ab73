"""Study files: read strictly, every mistake at once, each with its place, value, what is allowed, the
nearest word.
"""

import json
import random
from pathlib import Path

import pytest

from raykd.errors import UserError
from raykd.spec import Choice, Dimension, Range, Scalar
from raykd.study.comparison import list_studies, read_study
from raykd.study.search_warnings import list_search_warnings
from raykd.study.space import count_points, draw
from raykd.study.study import Study
from raykd.study.study_files import list_study_files

STUDIES = list_study_files().values()
PLAIN = """
name: small
recipe:
  data: {name: digits}
  teacher: {net: resnet20, train: {epochs: 2}}
  student: {net: resnet8}
  method: {name: dcd}
  epochs: 3
"""


def read(tmp_path: Path, text: str, *overrides: str) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return Study.read(path, overrides)


def read_error_lines(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as error:
        read(tmp_path, text, *overrides)
    return error.value.lines


def choose_at_random(seed: int):
    rng = random.Random(seed)

    def choose(path: str, dimension: Dimension) -> Scalar:
        if isinstance(dimension, Choice):
            return rng.choice(dimension.values)
        if dimension.integer:
            return rng.randint(int(dimension.low), int(dimension.high))
        return rng.uniform(dimension.low, dimension.high)

    return choose


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_study_file_reads_and_draws_recipes(path: Path) -> None:
    studies = list_studies(read_study(path))
    for study in studies:
        space = study.search_space()
        assert study.recipe_with(study.paper_point()) == study.recipe
        if path.parent.name == "cifar100":  # on a machine with GPUs they train on these
            assert study.cluster.cpus == study.cluster.gpus == "auto"
        for seed in range(100 // len(studies)):
            recipe = study.recipe_with(draw(space, choose_at_random(seed)))
            assert recipe.method.name == study.recipe.method.name


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_study_file_opens_with_paper_command_and_cost(path: Path) -> None:
    head = path.read_text().split("\nname:")[0]
    assert all(f"# {word}" in head for word in ("Paper:", "Command:", "Cost:"))


def test_round_trip(tmp_path: Path) -> None:
    study = read(tmp_path, PLAIN)
    assert Study.parse(study.to_dict(), "again") == study


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("epochs: 3", "epochs: three"), 'recipe/epochs = "three": should be a valid integer'),
        (("epochs: 3", "epochs: 0"), "recipe/epochs = 0: should be greater than or equal to 1"),
        (("epochs: 3", "epoch: 3"), "recipe/epoch: no such field. Did you mean 'epochs'?"),
        (("name: dcd", "name: dcdd"), "recipe/method/name = dcdd: unknown. Did you mean 'dcd'?"),
        (("name: dcd", "name: dcd, temprature: 4"), "recipe/method/temprature: no such field."),
        (("net: resnet8", "net: resnet9"), "no such net 'resnet9'. Did you mean 'resnet8'?"),
        (("name: digits", "name: digit"), "recipe/data/name = digit: unknown. Did you mean 'digits'?"),
        (("name: dcd}", "name: dcd, weights: {contrast: -1}}"), "recipe/method/weights/contrast = -1"),
        (
            ("{net: resnet20, train: {epochs: 2}}", "{net: resnet20}"),
            "recipe/teacher: say weights (a checkpoint), train",
        ),
        (("teacher: {net: resnet20, train: {epochs: 2}}", ""), "needs a teacher"),
        (("name: small", "name: 'no good'"), 'name = "no good"'),
        (("epochs: 3", "epochs: 3\nbudgett: {trials: 3}"), "budgett: no such field. Did you mean 'budget'?"),
        (("epochs: 3", "epochs: 3\nsearch: {sampler: {kind: tpee}}"), "unknown. Did you mean 'tpe'?"),
        (("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {low: 1, high: 0.1}}"), "low must be below high"),
        (("epochs: 3", "epochs: 3\nspace: {optimizer/lrr: open}"), "Did you mean 'optimizer/lr'?"),
        (
            ("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {low: 1, high: 2}}"),
            "leaves out recipe/optimizer/lr = 0.05",
        ),
        (("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {low: 0.01, hihg: 2}}"), "Did you mean 'high'?"),
        (("epochs: 3", "epochs: 3\nspace: {optimizer/lr: maybe}"), "should be open, fixed"),
        (
            ("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {low: 0.01, high: 1, step: 0}}"),
            "step must be above 0",
        ),
        (
            ("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {low: 0.01, high: 1, step: -1}}"),
            "step must be above",
        ),
        (
            ("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {low: 0.01, high: 1, step: 2}}"),
            "at most high - low",
        ),
        (("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {low: 0.01, high: .inf}}"), "high must be finite"),
        (
            ("epochs: 3", "epochs: 3\nspace: {epochs: {low: 1, high: 5, step: 0.5}}"),
            "step of an integer field",
        ),
        (("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {low: 0.01, high: 1, log: 3}}"), "true or false"),
        (("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {choices: [[1], 2]}}"), "a choice needs words"),
        (("epochs: 3", "epochs: 3\nspace: {optimizer/lr: {choices: [1, 1.0]}}"), "distinct values"),
        (
            ("epochs: 3", "epochs: 3\n  seed: 4294967296"),
            "recipe/seed = 4294967296: should be less than 4294967296",
        ),
        (
            ("epochs: 3", "epochs: 3\nsearch: {seed: 4294967296}"),
            "search/seed = 4294967296: should be less than",
        ),
        (
            ("epochs: 2", "epochs: 2, seed: 99999999999"),
            "recipe/teacher/train/seed = 99999999999: should be less",
        ),
        (("epochs: 3", "epochs: 3\n  epochs: 4"), "duplicate key"),
        (("epochs: 3", "epochs: [3"), "line"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    text = PLAIN.replace(*change)
    assert text != PLAIN
    messages = read_error_lines(tmp_path, text)
    assert any(expected in line for line in messages), messages
    assert all(line.startswith(str(tmp_path / "study.yaml")) and "\n" not in line for line in messages)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = PLAIN.replace("epochs: 3", "epochs: 0").replace("resnet8", "resnet9")
    messages = read_error_lines(
        tmp_path, text + "space: {optimizer/lr: {low: 2, high: 1}, method/tauu: open}\nbudget: {trails: 3}\n"
    )
    assert len(messages) == 5, messages


def test_overrides(tmp_path: Path) -> None:
    study = read(tmp_path, PLAIN, "epochs=5", "budget/trials=7", "data/images=200", "space/optimizer/lr=open")
    assert (study.recipe.epochs, study.budget.trials, study.recipe.data.images) == (5, 7, 200)
    assert "optimizer/lr" in study.search_space()
    assert "no such field" in read_error_lines(tmp_path, PLAIN, "recipe/epoch=5")[0]
    assert "path=value" in read_error_lines(tmp_path, PLAIN, "epochs")[0]
    for given, nearest in (("epoch=3", "epochs"), ("optimiser/lr=1", "optimizer"), ("budjet=3", "budget")):
        assert read_error_lines(tmp_path, PLAIN, given)[0].endswith(
            f"no such field. Did you mean '{nearest}'?"
        )


def test_a_study_narrows_and_closes_the_methods_space(tmp_path: Path) -> None:
    method_space = read(tmp_path, PLAIN).search_space()
    path = next(p for p, d in method_space.items() if isinstance(d, Range))
    closed = read(tmp_path, PLAIN + f"space: {{{path}: fixed}}\n").search_space()
    assert set(method_space) - set(closed) == {path}


def test_conditional_parts_are_drawn_only_when_active(tmp_path: Path) -> None:
    study = read(tmp_path, PLAIN + "space: {schedule/kind: open, schedule/factor: open}\n")
    space = study.search_space()
    assert space["schedule/factor"].conditions == (("schedule/kind", "step"),)
    points = [draw(space, choose_at_random(seed)) for seed in range(40)]
    for point in points:
        assert ("schedule/factor" in point) == (point["schedule/kind"] == "step")
        assert study.recipe_with(point).schedule.kind == point["schedule/kind"]
    assert {p["schedule/kind"] for p in points} == {"step", "cosine", "wsd"}


def test_one_rule_says_which_workers_share_a_batch(tmp_path: Path) -> None:
    for size, parts, workers, fits in (
        (12, 1, 4, True),
        (12, 3, 4, True),
        (12, 2, 4, False),
        (10, 1, 4, False),
    ):
        settings = (f"optimizer/batch_size={size}", f"optimizer/accumulate={parts}")
        for place, other in (("cluster", "confirm"), ("confirm", "cluster")):
            words = (*settings, f"{place}/workers={workers}", f"{other}/workers=1")
            if fits:
                assert read(tmp_path, PLAIN, *words).worker_counts()[f"{place}/workers"] == workers
                continue
            (line,) = read_error_lines(tmp_path, PLAIN, *words)
            micro = f", each in {parts} micro-batches" if parts > 1 else ""
            assert line.endswith(
                f"{place}/workers = {workers}: recipe/optimizer/batch_size = {size} cannot be shared evenly "
                f"by {workers} workers{micro}"
            )
    words = ("teacher/train/optimizer={batch_size: 10}", "confirm/workers=4")
    (line,) = read_error_lines(tmp_path, PLAIN, *words)
    assert "confirm/workers = 4: recipe/teacher/train/optimizer/batch_size = 10 cannot be shared" in line


def test_workers_are_a_number_or_between_two(tmp_path: Path) -> None:
    elastic = read(tmp_path, PLAIN, "cluster/workers={max: 4}", "optimizer/batch_size=64", "confirm=null")
    assert elastic.worker_counts() == {"cluster/workers/min": 1, "cluster/workers/max": 4}
    assert elastic.to_dict()["cluster"]["workers"] == {"min": 1, "max": 4}
    assert any(
        line.startswith("cluster/workers: batch_norm = local") for line in list_search_warnings(elastic)
    )
    assert Study.parse(elastic.to_dict(), "again") == elastic
    for workers, message in (
        ("0", "cluster/workers = 0: should be a whole number, 1 or more, or {min: ..., max: ...}"),
        ("{min: 2}", "cluster/workers/max: missing, and it has no default"),
        ("{min: 2, max: 1}", "cluster/workers: min = 2 is more than max = 1"),
        ("{min: 0, max: 1}", "cluster/workers/min = 0: should be greater than or equal to 1"),
    ):
        (line,) = read_error_lines(tmp_path, PLAIN, f"cluster/workers={workers}")
        assert line.endswith(message)


def test_workers_of_one_trial_never_share_a_gpu(tmp_path: Path) -> None:
    for place, other in (("cluster", "confirm"), ("confirm", "cluster")):
        words = ("optimizer/batch_size=64", f"{place}/workers=2", f"{other}/workers=1")
        (line,) = read_error_lines(tmp_path, PLAIN, *words, "cluster/gpus=0.5")
        assert f"cluster/gpus = 0.5: each of 2 workers ({place}/workers) needs whole" in line
        for gpus in ("auto", "0", "1", "2"):
            read(tmp_path, PLAIN, *words, f"cluster/gpus={gpus}")
    (line,) = read_error_lines(tmp_path, PLAIN, "cluster/gpus=1.5")
    assert "should be auto, a part of 1, or whole" in line


def test_points_of_a_space_are_counted(tmp_path: Path) -> None:
    fixed: dict[str, object] = dict.fromkeys(read(tmp_path, PLAIN).search_space(), "fixed")

    def count(**space: object) -> int | None:
        entries = fixed | {path.replace("__", "/"): entry for path, entry in space.items()}
        study = read(tmp_path, PLAIN, f"space={json.dumps(entries)}", "budget/trials=6")
        search_space = study.search_space()
        points = count_points(search_space)
        drawn = {str(draw(search_space, choose_at_random(seed))) for seed in range(300)}
        steps = any("step" in str(entry) for entry in space.values())
        assert points is None or steps or len(drawn) == points, (points, drawn)
        assert study.count_trials() == min(6, points or 6)
        assert bool(study.describe_shortage()) == (study.count_trials() < 6)
        return points

    assert count() == 1
    assert count(optimizer__batch_size={"choices": [32, 64]}) == 2
    assert (
        count(optimizer__batch_size={"choices": [32, 64]}, optimizer__nesterov={"choices": [False, True]})
        == 4
    )
    assert (
        count(epochs={"low": 1, "high": 5, "step": 1}) == 5
        and count(epochs={"low": 1, "high": 6, "step": 2}) == 3
    )
    assert count(optimizer__lr={"low": 0.05, "high": 0.25, "step": 0.1}) == 3
    assert count(optimizer__lr={"low": 0.01, "high": 0.5}) is None
    assert count(schedule__kind="open") == 3
    assert count(schedule__kind="open", schedule__factor={"choices": [0.1, 0.2, 0.3]}) == 2 + 3
    assert count(schedule__kind="open", schedule__factor="open") is None


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Study.read(tmp_path / "none.yaml")
