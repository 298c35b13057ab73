"""Several runs on one page: the papers' table, like against like, and what is not equal."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import fake_runs
from support.fake_report import made
from test_report import missing

from raykd import methods
from raykd.report import write
from raykd.report.comparison.figures import method_look, so_far
from raykd.report.comparison.lines import Line, tables
from raykd.report.comparison.unequal import unequal
from raykd.report.rows.collect import collect
from raykd.report.rows.study_file import printed
from raykd.report.rows.types import ConfirmRow, PublishedRow, RunData
from raykd.report.write import write_report as verb

CONDITIONS = {"recipe/epochs": 240, "recipe/seed": 0, "budget/trials": 40, "commit": "0123abc"}


def confirmed(**levels: Sequence[float]) -> list[ConfirmRow]:
    return [
        ConfirmRow(role, None, seed, accuracy, seconds=3600.0)
        for role, values in levels.items()
        for seed, accuracy in enumerate(values, 1)
    ]


def of(method: str, **levels: Sequence[float]) -> RunData:
    return replace(
        made(30), name=f"{method}-run", method=method, confirm=confirmed(**levels), conditions=CONDITIONS,
        settings=(("name", method),),
    )  # fmt: skip


def lines(*compared: RunData) -> dict[str, Line]:
    [table] = tables(compared)
    return {line.place: line for line in table.lines}


def test_like_is_compared_with_like_by_seed() -> None:
    kd = of("kd", best=(75.0, 75.2, 75.4), paper=(73.0, 73.1, 73.3), ce=(70.0, 70.4, 70.5))
    crd = of("crd", best=(76.0, 76.5, 76.1), paper=(75.0, 75.5, 75.2), ce=(70.0, 70.4, 70.5))
    found = lines(kd, crd)
    assert list(found) == [
        "ce, paper's point", "kd, paper's point", "kd, searched (kd-run)",
        "crd, paper's point", "crd, searched (crd-run)",
    ]  # fmt: skip
    searched, paper = found["crd, searched (crd-run)"], found["crd, paper's point"]
    assert searched.from_kd and searched.from_kd.line == "kd, searched (kd-run)"
    assert searched.from_kd.difference.mean == pytest.approx(1.0)
    assert searched.from_paper and searched.from_paper.difference.mean == pytest.approx(2.9 / 3)
    assert paper.from_kd and paper.from_kd.line == "kd, paper's point"
    assert paper.from_paper is None and found["kd, searched (kd-run)"].from_kd is None
    plain = [line.from_kd.difference.p for line in (searched, paper) if line.from_kd]
    told = [line.from_kd.p for line in (searched, paper) if line.from_kd]
    assert all(a is not None and b is not None and b >= a for a, b in zip(plain, told, strict=True))
    assert told[1] is not None and plain[1] is not None and told[1] > plain[1]


def test_another_budget_is_no_ground_for_a_difference() -> None:
    kd = of("kd", best=(75.0, 75.2, 75.4), paper=(73.0, 73.1, 73.3))
    crd = of("crd", best=(76.0, 76.5, 76.1), paper=(75.0, 75.5, 75.2))
    more = replace(crd, conditions=CONDITIONS | {"budget/trials": 400})
    found = lines(kd, more)["crd, searched (crd-run)"].from_kd
    assert found and found.line == "kd, paper's point"  # the searches are not equal: KD as its paper has it
    longer = replace(crd, conditions=CONDITIONS | {"recipe/epochs": 300})
    assert lines(kd, longer)["crd, searched (crd-run)"].from_kd is None
    assert lines(kd, longer)["crd, searched (crd-run)"].from_paper is not None


def test_the_same_recipe_measured_by_several_runs_is_one_line() -> None:
    crd = of("crd", best=(76.0,), kd=(73.0, 73.1))
    dkd = of("dkd", best=(76.5,), kd=(73.0, 73.1, 73.3))
    crd, dkd = (replace(run, conditions=CONDITIONS) for run in (crd, dkd))
    found = lines(crd, dkd)
    assert [place for place in found if place.startswith("kd")] == ["kd, paper's point"]
    assert found["kd, paper's point"].seeds == {1: 73.0, 2: 73.1, 3: 73.3}
    assert len(lines(crd, replace(crd, name="again"))) == 4


def test_what_is_unequal_is_named_with_its_runs() -> None:
    one = of("kd", best=(75.0,))
    two = replace(of("crd", best=(76.0, 76.2)), conditions=CONDITIONS | {"budget/trials": 9, "commit": "fff"})
    found = dict(unequal([one, two]))
    assert found["budget/trials"] == {"40": ["kd-run"], "9": ["crd-run"]}
    assert found["commit"] == {"0123abc": ["kd-run"], "fff": ["crd-run"]}
    assert found["seeds on the test set"] == {"1": ["kd-run"], "1, 2": ["crd-run"]}
    assert "recipe/epochs" not in found
    assert unequal([one, replace(one, name="twin")]) == []


def test_published_numbers_are_of_the_pair_with_their_source() -> None:
    [alone] = printed("dcd", False, "cifar100", "wrn_40_2", "wrn_16_2")
    [beside] = printed("dcd", True, "cifar100", "wrn_40_2", "wrn_16_2")
    assert alone == PublishedRow(74.99, "DCD: giakoumoglou/distillers, README")
    assert beside == PublishedRow(76.06, "DCD + KD: giakoumoglou/distillers, README")
    assert printed("kd", False, "imagenet", "resnet34", "resnet18")
    assert printed("dcd", False, "digits", "resnet14", "resnet8") == []


def test_every_method_has_a_look_of_its_own() -> None:
    looks = [method_look(name) for name in methods.names()]
    assert len({(look.colour, look.mark, str(look.dashes)) for look in looks}) == len(looks)
    assert method_look("crd") == method_look("crd") != method_look("crd", again=1)


def test_accuracy_against_cost_ends_at_the_whole_cost() -> None:
    run = made(40)
    points = so_far(run)
    assert points[-1] == (pytest.approx(run.hours()), run.finished()[0].accuracy)
    assert [best for _, best in points] == sorted(best for _, best in points)


@pytest.mark.slow
def test_eight_methods_on_two_pairs_make_one_page(tmp_path: Path) -> None:
    names = ["at", "crd", "dcd", "dkd", "kd", "pckd", "rkd", "wcord"]
    some = [
        replace(of(name, best=(75.0 + i, 75.4 + i), paper=(74.0 + i, 74.5 + i)), student=student)
        for student in ("resnet8x4", "ShuffleV2")
        for i, name in enumerate(names)
    ]
    page = write.write_comparison(some, tmp_path)
    text = page.read_text()
    assert missing(text) == set()
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
    kd = fake_runs.write(fake_runs.study("kd-digits", "kd", 6), storage)
    dcd = fake_runs.write(fake_runs.study("dcd-digits", "dcd", 8), storage, gain=2.0)
    begun = fake_runs.write(fake_runs.study("crd-digits", "crd", 6), storage, confirmed=False)
    page = Path(verb([kd.folder.uri, dcd.folder.uri, begun.folder.uri]))
    assert page == storage / "comparison/index.html"
    text = page.read_text()
    assert "crd-digits is not confirmed" in text
    assert "<code>budget/trials</code>: 6 (kd-digits, crd-digits); 8 (dcd-digits)" in text
    found = {line.place: line for line in tables([collect(kd), collect(dcd)])[0].lines}
    searched = found["dcd, searched (dcd-digits)"]
    assert searched.from_kd and searched.from_kd.line == "kd, paper's point"
    assert searched.from_kd.difference.n == 3
