"""Several runs on one page: the papers' table, like against like, and what is not equal."""

import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import fake_runs
from support.fake_report import make_run
from test_report import missing_figures

from raykd import methods
from raykd.report import write
from raykd.report.comparison.figures import best_so_far, method_style
from raykd.report.comparison.recipe_results import RecipeResult, build_pair_tables
from raykd.report.comparison.setting_differences import find_setting_differences
from raykd.report.rows.collect import collect
from raykd.report.rows.study_file import StudyFile, find_published
from raykd.report.rows.types import ConfirmationRow, PublishedRow, RunData
from raykd.report.write import write_report

STUDIES = Path(__file__).parents[2] / "studies"
CONDITIONS = {"recipe/epochs": 240, "recipe/seed": 0, "budget/trials": 40, "commit": "0123abc"}


def make_confirmations(**levels: Sequence[float]) -> list[ConfirmationRow]:
    return [
        ConfirmationRow(role, None, seed, accuracy, seconds=3600.0)
        for role, values in levels.items()
        for seed, accuracy in enumerate(values, 1)
    ]


def make_method_run(method: str, **levels: Sequence[float]) -> RunData:
    return replace(
        make_run(30), name=f"{method}-run", method=method, confirmations=make_confirmations(**levels),
        conditions=CONDITIONS,
        method_settings=(("name", method),),
    )  # fmt: skip


def results_by_label(*runs: RunData) -> dict[str, RecipeResult]:
    [table] = build_pair_tables(runs)
    return {result.label: result for result in table.results}


def test_like_is_compared_with_like_by_seed() -> None:
    kd = make_method_run("kd", best=(75.0, 75.2, 75.4), paper=(73.0, 73.1, 73.3), ce=(70.0, 70.4, 70.5))
    crd = make_method_run("crd", best=(76.0, 76.5, 76.1), paper=(75.0, 75.5, 75.2), ce=(70.0, 70.4, 70.5))
    results = results_by_label(kd, crd)
    assert list(results) == [
        "ce, paper's point", "kd, paper's point", "kd, searched (kd-run)",
        "crd, paper's point", "crd, searched (crd-run)",
    ]  # fmt: skip
    searched, paper = results["crd, searched (crd-run)"], results["crd, paper's point"]
    assert searched.kd_difference and searched.kd_difference.baseline == "kd, searched (kd-run)"
    assert searched.kd_difference.difference.mean == pytest.approx(1.0)
    assert searched.paper_difference and searched.paper_difference.difference.mean == pytest.approx(2.9 / 3)
    assert paper.kd_difference and paper.kd_difference.baseline == "kd, paper's point"
    assert paper.paper_difference is None and results["kd, searched (kd-run)"].kd_difference is None
    p_values = [result.kd_difference.difference.p for result in (searched, paper) if result.kd_difference]
    corrected_p_values = [result.kd_difference.p for result in (searched, paper) if result.kd_difference]
    assert all(
        a is not None and b is not None and b >= a for a, b in zip(p_values, corrected_p_values, strict=True)
    )
    assert (
        corrected_p_values[1] is not None and p_values[1] is not None and corrected_p_values[1] > p_values[1]
    )


def test_another_budget_is_no_ground_for_a_difference() -> None:
    kd = make_method_run("kd", best=(75.0, 75.2, 75.4), paper=(73.0, 73.1, 73.3))
    crd = make_method_run("crd", best=(76.0, 76.5, 76.1), paper=(75.0, 75.5, 75.2))
    more = replace(crd, conditions=CONDITIONS | {"budget/trials": 400})
    difference = results_by_label(kd, more)["crd, searched (crd-run)"].kd_difference
    assert (
        difference and difference.baseline == "kd, paper's point"
    )  # the searches are not equal: KD as its paper has it
    longer = replace(crd, conditions=CONDITIONS | {"recipe/epochs": 300})
    assert results_by_label(kd, longer)["crd, searched (crd-run)"].kd_difference is None
    assert results_by_label(kd, longer)["crd, searched (crd-run)"].paper_difference is not None


def test_the_same_recipe_measured_by_several_runs_is_one_result() -> None:
    crd = make_method_run("crd", best=(76.0,), kd=(73.0, 73.1))
    dkd = make_method_run("dkd", best=(76.5,), kd=(73.0, 73.1, 73.3))
    crd, dkd = (replace(run, conditions=CONDITIONS) for run in (crd, dkd))
    results = results_by_label(crd, dkd)
    assert [label for label in results if label.startswith("kd")] == ["kd, paper's point"]
    assert results["kd, paper's point"].accuracies == {1: 73.0, 2: 73.1, 3: 73.3}
    assert len(results_by_label(crd, replace(crd, name="again"))) == 4


def test_a_run_without_a_teacher_stands_in_the_table_of_every_pair_with_its_student() -> None:
    def of_pair(run: RunData, teacher: str, start: str) -> RunData:
        conditions = CONDITIONS | {"recipe/teacher/start": start, "recipe/teacher/cache/top_logits": None}
        return replace(run, teacher=teacher, conditions=conditions)

    kd = make_method_run("kd", best=(75.0, 75.2, 75.4), paper=(73.0, 73.1, 73.3))
    kds = of_pair(kd, "resnet20", "a"), of_pair(replace(kd, name="kd-2"), "resnet32", "b")
    ce = make_method_run("ce", best=(71.0, 71.5, 71.1), paper=(70.0, 70.4, 70.5))
    ce = replace(ce, teacher="none", conditions=CONDITIONS | {"recipe/teacher": None})
    tables = build_pair_tables([ce, *kds])
    assert [table.teacher for table in tables] == ["resnet20", "resnet32"]
    for table, kd_run in zip(tables, kds, strict=True):
        ce_paper, searched = table.results[:2]
        assert searched.label == "ce, searched (ce-run)" and searched.paper_difference
        assert ce_paper.kd_difference and ce_paper.kd_difference.baseline == "kd, paper's point"
        assert searched.kd_difference and searched.kd_difference.baseline == f"kd, searched ({kd_run.name})"
    assert [table.teacher for table in build_pair_tables([ce])] == ["none"]
    assert len(build_pair_tables([ce, replace(kds[0], student="resnet14")])) == 2


def test_what_is_unequal_is_named_with_its_runs() -> None:
    one = make_method_run("kd", best=(75.0,))
    two = replace(
        make_method_run("crd", best=(76.0, 76.2)),
        conditions=CONDITIONS | {"budget/trials": 9, "commit": "fff"},
    )
    differences = dict(find_setting_differences([one, two]))
    assert differences["budget/trials"] == {"40": ["kd-run"], "9": ["crd-run"]}
    assert differences["commit"] == {"0123abc": ["kd-run"], "fff": ["crd-run"]}
    assert differences["seeds on the test set"] == {"1": ["kd-run"], "1, 2": ["crd-run"]}
    assert "recipe/epochs" not in differences
    assert find_setting_differences([one, replace(one, name="twin")]) == []
    fewer = replace(one, name="fewer", trials=one.trials[:9])
    assert [path for path, _ in find_setting_differences([one, fewer])] == ["trials that ended"]
    hours = CONDITIONS | {"budget/device_hours": 4.0}
    assert find_setting_differences([replace(run, conditions=hours) for run in (one, fewer)]) == []


def test_a_mixture_inside_a_run_is_listed_even_where_the_runs_are_alike() -> None:
    environments = [{"precision": "float32", "device": "CPU"}] * 2 + [
        {"precision": "bfloat16", "device": "CPU"}
    ]
    runs = [replace(make_method_run(name, best=(75.0,)), environments=environments) for name in ("kd", "crd")]
    assert find_setting_differences(runs) == [
        ("trials' precision", {"2 x float32, 1 x bfloat16": ["kd-run", "crd-run"]})
    ]
    alike = [replace(run, environments=environments[:2]) for run in runs]
    assert find_setting_differences(alike) == []
    unknown = replace(runs[1], environments=())
    assert dict(find_setting_differences([alike[0], unknown])) == {
        "trials' precision": {"float32": ["kd-run"], "unknown": ["crd-run"]},
        "trials' device": {"CPU": ["kd-run"], "unknown": ["crd-run"]},
    }


def make_started_run(name: str, teacher: str, **start: str) -> RunData:
    recipe = {"student": {"net": "resnet8"} | start, "teacher": {"net": "resnet20", "weights": teacher}}
    study_file = StudyFile({"recipe": recipe}, None)
    return replace(make_method_run(name, best=(75.0,)), conditions=study_file.get_conditions())


def test_unequal_starts_are_named_and_equal_ones_are_not_by_their_places() -> None:
    file = {"weights": "/a/s.pth", "sha256": "ab" * 32}
    runs = [
        make_started_run("kd", "/a/t.pth"),
        make_started_run("crd", "/b/t.pth", **file),
        make_started_run("dkd", "/a/t.pth", **file | {"weights": "/b/s.pth"}),
        make_started_run("at", "/a/t.pth", **file | {"weights": "pretrained", "head": "new"}),
    ]
    [(path, values)] = find_setting_differences(runs)
    assert path == "recipe/student/start" and values == {
        "random": ["kd-run"],
        "s.pth, SHA-256 abababababab": ["crd-run", "dkd-run"],
        "pretrained, SHA-256 abababababab, new head": ["at-run"],
    }


def test_published_numbers_are_of_the_pair_with_their_source() -> None:
    [alone] = find_published("dcd", False, "cifar100", "wrn_40_2", "wrn_16_2")
    [beside] = find_published("dcd", True, "cifar100", "wrn_40_2", "wrn_16_2")
    assert alone == PublishedRow(74.99, "DCD: giakoumoglou/distillers, README")
    assert beside == PublishedRow(76.06, "DCD + KD: giakoumoglou/distillers, README")
    assert find_published("kd", False, "imagenet", "resnet34", "resnet18")
    assert find_published("dcd", False, "digits", "resnet14", "resnet8") == []


def test_every_method_has_a_style_of_its_own() -> None:
    styles = [method_style(name) for name in methods.names()]
    assert len({(style.colour, style.marker, str(style.linestyle)) for style in styles}) == len(styles)
    assert method_style("crd") == method_style("crd") != method_style("crd", repeat=1)


def test_accuracy_against_cost_ends_at_the_whole_cost() -> None:
    run = make_run(40)
    points = best_so_far(run)
    assert points[-1] == (pytest.approx(run.search_hours()), run.complete_trials()[0].accuracy)
    assert [best for _, best in points] == sorted(best for _, best in points)


@pytest.mark.slow
def test_eight_methods_on_two_pairs_make_one_page(tmp_path: Path) -> None:
    names = ["at", "crd", "dcd", "dkd", "kd", "pckd", "rkd", "wcord"]
    runs = [
        replace(make_method_run(name, best=(75.0 + i, 75.4 + i), paper=(74.0 + i, 74.5 + i)), student=student)
        for student in ("resnet8x4", "ShuffleV2")
        for i, name in enumerate(names)
    ]
    page = write.write_comparison(runs, tmp_path)
    text = page.read_text()
    assert missing_figures(text) == set()
    assert text.count("data-figure=") == 6
    assert text.count("resnet32x4 → ShuffleV2 on cifar100") >= 2 and "Methods and pairs" in text
    assert "Budgets, splits, seeds, data and commits are the same" in text
    table = pq.read_table(tmp_path / "tables/comparison.parquet")
    assert table.num_rows == 32
    assert all(field.metadata[b"description"] for field in table.schema)
    assert (tmp_path / "figures/edf-2.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_real_runs_are_compared_beside_each_other(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    kd = fake_runs.write_run(fake_runs.make_study("kd-digits", "kd", 6), storage)
    dcd = fake_runs.write_run(fake_runs.make_study("dcd-digits", "dcd", 8), storage, gain=2.0)
    unconfirmed = fake_runs.write_run(fake_runs.make_study("crd-digits", "crd", 6), storage, confirmed=False)
    page = Path(write_report([kd.folder.uri, dcd.folder.uri, unconfirmed.folder.uri]))
    assert page == storage / "comparison/index.html"
    text = page.read_text()
    assert "crd-digits is not confirmed" in text
    assert "<code>budget/trials</code>: 6 (kd-digits, crd-digits); 8 (dcd-digits)" in text
    results = {result.label: result for result in build_pair_tables([collect(kd), collect(dcd)])[0].results}
    searched = results["dcd, searched (dcd-digits)"]
    assert searched.kd_difference and searched.kd_difference.baseline == "kd, paper's point"
    assert searched.kd_difference.difference.n == 3


def test_the_runs_that_are_kept_give_the_recorded_numbers(tmp_path: Path) -> None:
    """studies/comparison/kept, from which a comparison goes on, and its table in studies/RECORDS.md."""
    runs = []
    for archive in sorted((STUDIES / "comparison/kept").glob("*.tar.xz")):
        with tarfile.open(archive) as files:
            files.extractall(tmp_path, filter="data")
        runs.append(str(tmp_path / archive.name.removesuffix(".tar.xz")))
    write_report(runs, tmp_path / "page")
    rows = pq.read_table(tmp_path / "page/tables/comparison.parquet").to_pylist()
    records = (STUDIES / "RECORDS.md").read_text()
    assert len(rows) == 2 * len(runs) >= 6
    for row in rows:
        assert row["n"] == 3 and f"{row['test_accuracy']:.2f} ± {row['half_width']:.2f}" in records
