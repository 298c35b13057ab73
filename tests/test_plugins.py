"""Plugins: an installed package's and a file's; what is wrong with one is a line, before anything begins."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from raykd import data, methods, models, plugins
from raykd.contract.contract import check_method
from raykd.contract.promises import check_terms_and_gradients
from raykd.contract.subject import BrokenPromise, Subject
from raykd.driver.job import make_trial_job
from raykd.driver.launch import read_study
from raykd.errors import UserError
from raykd.store.plugin_copies import read_copies
from raykd.store.run_files import RunFiles
from raykd.study.offers import check_offers
from raykd.study.study import Study
from raykd.teachers.teacher import LiveTeacher
from raykd.training import student

EXAMPLE = Path(__file__).parents[1] / "studies" / "plugin"
FILE = EXAMPLE / "raykd_example.py"
SETTINGS: dict[str, Any] = {
    "name": "mine",
    "recipe": {
        "data": {"name": "digits"},
        "teacher": {"net": "resnet14", "train": {"epochs": 1}},
        "student": {"net": "two_convolutions"},
        "method": {"name": "logit_cosine"},
    },
}
OTHER = """
from typing import Literal
import optuna
from raykd.data import Digits
from raykd.study.search import CustomSampler

class TwiceDigits(Digits):
    name: Literal["my_digits"] = "my_digits"

class Plain(CustomSampler):
    kind: Literal["plain"] = "plain"
    def make(self, seed: int):
        return optuna.samplers.RandomSampler(seed=seed)

data, samplers = {"my_digits": TwiceDigits}, {"plain": Plain}
"""


@pytest.fixture(autouse=True)
def _no_plugins_afterwards() -> Iterator[None]:
    yield
    plugins.use({})


def use(source: str, name: str = "own.py") -> None:
    plugins.use({name: source})


def refusal(function: Callable[[], Any]) -> list[str]:
    with pytest.raises(UserError) as error:
        function()
    return error.value.lines


def test_a_file_adds_names_until_other_files_are_used() -> None:
    assert "logit_cosine" not in methods.names() and "two_convolutions" not in models.names()
    lines = refusal(lambda: Study.parse(SETTINGS, "study"))
    assert len(lines) == 2 and all("; or a plugin's (--plugin FILE.py)" in line for line in lines)
    plugins.use(plugins.read_files([FILE]))
    study = Study.parse(SETTINGS, "study")
    assert list(study.search_space()) == ["method/weights/cosine"]
    assert models.make("two_convolutions", 10).shapes(32).maps == ((16, 16, 16), (32, 8, 8))
    assert Study.parse(study.to_dict(), "again") == study
    wrong = SETTINGS["recipe"] | {"method": {"name": "logit_cosine", "weights": {"cosinus": 1.0}}}
    assert refusal(lambda: Study.parse(SETTINGS | {"recipe": wrong}, "study")) == [
        "study: recipe/method/weights/cosinus: no such field. Did you mean 'cosine'?"
    ]
    plugins.use({})
    assert "logit_cosine" not in methods.names()


def test_the_example_keeps_the_contract_and_a_careless_method_is_told_what_it_breaks() -> None:
    plugins.use(plugins.read_files([FILE]))
    assert [result.fault for result in check_method("logit_cosine")] == [""] * 10
    use(FILE.read_text().replace(".logits.detach()", ".logits"))
    with pytest.raises(BrokenPromise, match="a gradient reaches the teacher"):
        check_terms_and_gradients(Subject("logit_cosine"))


def test_a_teachers_cache_is_of_the_files_text() -> None:
    source, keys = FILE.read_text(), set()
    index = data.ViewIndex("views", 1, 1, torch.zeros(1, dtype=torch.int64))
    for text in (
        source,
        source,
        source.replace(
            "return make_outputs((first, last), last", "return make_outputs((first, last), 2 * last"
        ),
    ):
        use(text)
        torch.manual_seed(0)
        live = LiveTeacher(models.make("two_convolutions", 10), 32, torch.device("cpu"), False)
        keys.add(live.compute_cache_key(index))
    assert len(keys) == 2


def test_data_sets_and_samplers() -> None:
    use(OTHER)
    recipe = SETTINGS["recipe"] | {
        "data": {"name": "my_digits", "images": 100}, "student": {"net": "resnet8"}, "method": {"name": "kd"},
    }  # fmt: skip
    study = Study.parse(SETTINGS | {"recipe": recipe, "search": {"sampler": {"kind": "plain"}}}, "study")
    assert data.load(study.recipe.data, Path("unused"), False).info.images == 90
    from raykd.driver.samplers import make_sampler

    assert type(make_sampler(study, 3)).__name__ == "RandomSampler"
    sampler = {"sampler": {"kind": "plane"}}
    assert (
        "Did you mean 'plain'?"
        in refusal(lambda: Study.parse(SETTINGS | {"recipe": recipe, "search": sampler}, "study"))[0]
    )


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "import no_such_package\n",
            "plugin own.py, line 1: cannot be imported: ModuleNotFoundError: No module",
        ),
        ("x = (\n", "plugin own.py, line 1: cannot be imported: SyntaxError: '(' was never closed"),
        ("raise SystemExit(3)\n", "plugin own.py, line 1: cannot be imported: SystemExit: 3"),
        ("net = {}\n", "plugin own.py: offers nothing: no dict named nets or methods or data or samplers"),
        ("nets = ['mine']\n", "plugin own.py: nets should be a dict, {name: object}"),
    ],
)
def test_a_file_that_is_no_plugin_is_one_line(source: str, line: str) -> None:
    lines = refusal(lambda: use(source))
    assert len(lines) == 1 and lines[0].startswith(line)
    assert plugins.get_sources() == {}


def test_a_name_that_is_taken_is_refused() -> None:
    taken = {"nets": "resnet8", "methods": "kd", "data": "digits", "samplers": "tpe"}
    use("\n".join(f"{group} = {{'{name}': None}}" for group, name in taken.items()))
    assert refusal(check_offers) == [
        f"plugin own.py: {group}: '{name}' is the name of a built-in one" for group, name in taken.items()
    ]
    two = {"a.py": "nets = {'mine': None}\n", "b.py": "nets = {'mine': None}\n"}
    assert refusal(lambda: plugins.use(two)) == ["plugin b.py: nets: 'mine' is offered by a.py, too"]


def test_a_method_without_what_the_contract_asks_is_a_line_for_each() -> None:
    use("from raykd.methods import Method\nclass Mine(Method): status = 'proven'\nmethods = {'mine': Mine}\n")
    lines = refusal(lambda: methods.get_class("mine"))
    assert all(line.startswith("plugin own.py: method 'mine': ") for line in lines)
    faults = ("forward(batch)", "`needs`", "`status`", "`paper`", "`config: Config`")
    assert [fault in line for fault, line in zip(faults, lines, strict=True)] == [True] * 5
    use(FILE.read_text().replace('= {"logit_cosine"', '= {"other"'))
    assert refusal(lambda: methods.get_class("other")) == [
        """plugin own.py: method 'other': the Config's `name` should be Literal["other"] = "other\""""
    ]
    use("methods, nets = {'mine': 3}, {'one': lambda: None, 'two': lambda classes: classes}\n")
    assert "should be a class derived from" in refusal(lambda: methods.get_class("mine"))[0]
    assert "net 'one' of 10 classes:" in refusal(lambda: models.make("one", 10))[0]
    assert "should be a raykd.models.Net, not int" in refusal(lambda: models.make("two", 10))[0]


def test_options_of_the_command_line(verb: Callable[..., Any], tmp_path: Path) -> None:
    study, broken = str(EXAMPLE / "study.yml"), tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    result = verb("launch", study, "--plugin", str(broken))
    assert (result.returncode, result.stdout) == (2, "")
    expected = "plugin broken.py, line 1: cannot be imported: ZeroDivisionError: division by zero\n"
    assert result.stderr == expected and not (tmp_path / "runs").exists()
    assert verb("launch", study, "--plugin", "none.py").stderr.count("\n") == 1
    result = verb("launch", study)
    assert result.returncode == 2 and "two_convolutions" in result.stderr
    result = verb("plan", study, "--plugin", str(FILE), "--images-per-second", "1000", "--json")
    assert result.returncode == 0 and "method/weights/cosine" in result.stdout
    assert "logit_cosine" in verb("methods", "--plugin", str(FILE)).stdout
    assert verb("methods", "check", "no_such", "--plugin", str(FILE)).returncode == 2


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example as an installed package, in a folder of its own."""
    base = tmp_path_factory.mktemp("installed")
    source = base / "source"
    source.mkdir()
    for file in (FILE, EXAMPLE / "pyproject.toml"):
        (source / file.name).write_bytes(file.read_bytes())
    words = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, *words, "--target", base / "site", source], check=True, capture_output=True
    )
    return str(base / "site")


def test_an_installed_package_adds_names(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib_metadata  # noqa: F401  MLflow's: from then on entry points are of its own class

    assert plugins.describe_installed() == ""
    monkeypatch.syspath_prepend(installed)
    assert "logit_cosine" in methods.names() and "two_convolutions" in models.names()
    assert methods.get_class("logit_cosine").__module__ == "raykd_example"
    assert "methods/logit_cosine of raykd-example 0.1.0 (" in plugins.describe_installed()
    plugins.use(plugins.read_files([FILE]))
    line = "plugin raykd_example.py: methods: 'logit_cosine' is offered by raykd-example 0.1.0, too"
    assert refusal(methods.names) == [line]
    (Path(installed) / "raykd_example.py").write_text("import no_such_package\n")
    plugins.use({})
    monkeypatch.delitem(sys.modules, "raykd_example")
    assert refusal(lambda: methods.get_class("logit_cosine"))[0].startswith(
        "plugin raykd-example 0.1.0: methods: 'logit_cosine': cannot be imported: ModuleNotFoundError"
    )


def begin_run(folder: Path) -> tuple[RunFiles, Study]:
    plugins.use(plugins.read_files([FILE]))
    study, run_files = Study.parse(SETTINGS, "study"), RunFiles(str(folder))
    run_files.begin(study.to_dict())
    assert read_copies(run_files.folder) == {FILE.name: FILE.read_text()}
    return run_files, study


@pytest.mark.slow
def test_a_runs_copy_runs_only_when_it_is_given(verb: Callable[..., Any], tmp_path: Path) -> None:
    run_files, study = begin_run(tmp_path / "runs" / "mine")
    run, copy = run_files.folder.uri, tmp_path / "runs" / "mine" / "plugins" / FILE.name
    job = make_trial_job((), tmp_path, False, study.with_resources(1, 0), study.recipe, run)
    assert job.plugins == {FILE.name: FILE.read_text()}
    other = tmp_path / FILE.name
    other.write_text(f"import pathlib\n{FILE.read_text()}\npathlib.Path('changed').touch()\n")
    copy.write_text(f"import pathlib\n{FILE.read_text()}\npathlib.Path('executed').touch()\n")
    words = f"{run}: uses the plugin {FILE.name}, which is code: add --plugin {copy} (the run's copy), or "
    for verb_words in (["resume", run], ["confirm", run], ["export", run, "out"], ["report", run]):
        result = verb(*verb_words)
        assert result.returncode == (0 if verb_words[0] == "report" else 2)
        assert result.stderr.startswith(words) and result.stderr.count("\n") == 1
    assert verb("status", run).returncode == 0 and not Path("executed").exists()
    page = (tmp_path / "runs" / "mine" / "report" / "index.html").read_text()
    assert "a method that this version does not have" in page and f"add --plugin {copy}" in page
    for verb_words in (["resume", run], ["launch", str(EXAMPLE / "study.yml"), "--set", "name=mine"]):
        result = verb(*verb_words, "--plugin", str(other))
        assert result.returncode == 2 and result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"--plugin {FILE.name}: differs from the copy in {run} (SHA-256 ")
        assert f"give --plugin {copy}, or begin a new run" in result.stderr
    assert not Path("executed").exists()
    assert verb("report", run, "--plugin", str(copy)).stderr == "" and Path("executed").exists()
    page = (tmp_path / "runs" / "mine" / "report" / "index.html").read_text()
    assert "an example, of no paper" in page
    assert read_study(run, None) == Study.parse(study.to_dict(), "study")


@pytest.mark.slow
def test_a_recipe_is_trained_with_a_plugin_file(verb: Callable[..., Any], tmp_path: Path) -> None:
    recipe = SETTINGS["recipe"] | {
        "data": {"name": "digits", "images": 100, "holdout": 0.2}, "epochs": 1,
        "optimizer": {"batch_size": 16},
        "teacher": {"net": "two_convolutions", "train": {"epochs": 1, "optimizer": {"batch_size": 16}}},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    result = verb("train", "recipe.yaml", "--plugin", str(FILE), "--out", "out")
    assert result.returncode == 0 and "cosine" in result.stdout, result.stderr
    assert (tmp_path / "out" / "student.safetensors").exists()
    for words in (["train", "recipe.yaml", "--out", "out"], ["transfer", "out", "--to", "digits"]):
        result = verb(*words)
        assert result.returncode == 2 and "--plugin" in result.stderr


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_plugin_reaches_every_worker(verb: Callable[..., Any], tmp_path: Path, ray_session: str) -> None:
    """A trial in Tune's actor; the teacher's training and the confirmation in Ray Train's workers."""
    own, run = tmp_path / FILE.name, tmp_path / "runs" / "plugin"
    own.write_text(FILE.read_text())
    settings = ["budget/trials=1", "confirm={leaders: 1, controls: [], seeds: 1}", "confirm/workers=2"]
    settings += ["teacher={net: two_convolutions, train: {epochs: 1, optimizer: {batch_size: 32}}}"]
    words = [word for setting in settings for word in ("--set", setting)]
    result = verb("launch", str(EXAMPLE / "study.yml"), "--plugin", str(own), *words)
    assert result.returncode == 0, result.stderr
    assert read_copies(RunFiles(str(run)).folder) == {own.name: own.read_text()}
    assert (run / "report" / "index.html").exists() and (run / "export" / "student.onnx").exists()
    assert (run / "export" / "plugins" / own.name).read_text() == own.read_text()
    assert [row["state"] for row in RunFiles(str(run)).trials()] == ["COMPLETE"]
    assert RunFiles(str(run)).confirmations()
    result = verb("resume", str(run), "--plugin", str(run / "plugins" / own.name), "--trials", "2")
    assert result.returncode == 0, result.stderr
    assert [row["state"] for row in RunFiles(str(run)).trials()] == ["COMPLETE"] * 2
    export = str(run / "export")
    plugins.use({})
    assert "add --plugin" in refusal(lambda: student.load(export))[0]
    plugins.use(plugins.read_files([run / "export" / "plugins" / own.name]))
    assert student.load(export).recipe.student.net == "two_convolutions"
