"""The report of a run's own files: whole, half-written, of an older version, without a finished trial."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import fake_runs
from test_report import FIGURES, missing_figures

from raykd.errors import UserError
from raykd.report.rows.collect import collect
from raykd.report.rows.types import get_seconds
from raykd.report.tables import tensorboard
from raykd.report.write import write_report
from raykd.run import Run
from raykd.store.run_files import RunFiles
from raykd.store.status import rank_trials


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    return fake_runs.write_run(fake_runs.make_study("made", trials=14), tmp_path / "runs")


def rewrite_json(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.slow
def test_a_finished_run_has_no_problem_and_every_figure(run: RunFiles) -> None:
    data = collect(run)
    assert list(data.problems) == []
    best = rank_trials(run.trials())[0]
    assert (
        data.complete_trials()[0].number == best["number"]
        and data.complete_trials()[0].accuracy == best["accuracy"]
    )
    assert {row.role for row in data.confirmations} == {"best", "paper", "ce", "kd"}
    assert all(
        row.analysis is not None and row.epochs == 2 and row.seconds == 6.0 for row in data.confirmations
    )
    page = Path(write_report([run.folder.uri]))
    assert page == Path(run.folder.uri) / "report/index.html"
    assert missing_figures(page.read_text()) <= {
        "contours",
        "rank_correlations",
    }  # 14 trials, most of them pruned
    assert "Classes that gained most against ce" in page.read_text()
    classes = pq.read_table(page.parent / "tables/classes.parquet")
    assert classes.num_rows == 4 * 3 * 10


@pytest.mark.slow
def test_another_metric_is_shown_under_its_own_name(tmp_path: Path, verb: Callable[..., Any]) -> None:
    study = fake_runs.make_study("made", trials=8)
    study = study.model_copy(update={"search": study.search.model_copy(update={"objectives": ("macro_f1",)})})
    run = fake_runs.write_run(study, tmp_path / "runs")
    rows, data = collect(run), Run(run)
    assert list(rows.problems) == [] and list(rows.published) == []
    best = rank_trials(run.trials())[0]
    assert rows.complete_trials()[0].accuracy == best["macro_f1"] > best["accuracy"]
    assert data.trials()["macro_f1"][best["number"]].as_py() == best["macro_f1"]
    assert {"metric", "macro_f1", "accuracy"} <= set(data.confirmations().column_names)
    page = Path(write_report([run.folder.uri]))
    text = page.read_text()
    for words in ("held-out macro F1 (%)", "test macro F1 (%)", "What decides the macro F1"):
        assert words in text
    assert "held-out accuracy" not in text
    assert text.count("test accuracy (%)") == 1  # student and teacher side by side
    trials = pq.read_table(page.parent / "tables/trials.parquet")
    assert "held_out_macro_f1" in trials.column_names and "held_out_accuracy" not in trials.column_names
    shown = verb("status", run.folder.uri).stdout
    assert f"best      {best['macro_f1']:.2f} % held-out (macro F1), trial {best['number']}" in shown
    assert "% (macro F1) (n = 3)" in shown


@pytest.mark.slow
def test_a_half_written_run_says_what_is_missing(run: RunFiles) -> None:
    folder = Path(run.folder.uri)
    (folder / "trials/00003/trial.json").write_text('{"number": 3, "state": "COM')
    (folder / "trials/00004/epochs.json").write_text("[{")
    (folder / "provenance.json").write_text("")
    (folder / "confirm/best-seed1/epochs.json").write_text("")
    (folder / "confirm/best-seed2/analysis.json").write_text('{"agreement": "high"}')
    (folder / "state.json").unlink()
    page = Path(write_report([run.folder.uri])).read_text()
    assert "trials/00003/trial.json: left out: missing, torn, or not a row" in page
    assert "trials/00004/epochs.json, confirm/best-seed1/epochs.json: left out: torn" in page
    assert "confirm/best-seed2/analysis.json: left out: agreement: input should be a valid number" in page
    assert "begun with raykd of a version that it does not say" in page
    assert "The study was interrupted" in page
    assert missing_figures(page) <= {"contours", "rank_correlations", "importances"}


@pytest.mark.slow
def test_a_run_of_an_older_version_says_so_and_shows_what_it_can(run: RunFiles) -> None:
    folder = Path(run.folder.uri)
    study = run.study()
    study["recipe"]["method"] = {"name": "dcd", "temprature": 0.1}
    study["searcher"] = "tpe"
    run.folder.write_yaml("study.yaml", study)
    rewrite_json(folder / "provenance.json", lambda provenance: provenance | {"raykd": "0.0.7"})
    for path in sorted(folder.glob("trials/*/trial.json"))[:5]:
        rewrite_json(path, lambda row: {k: v for k, v in row.items() if k not in ("role", "started")})
    for path in folder.glob("trials/*/epochs.json"):
        rewrite_json(path, lambda rows: [{"epoch": r["epoch"], "accuracy": r["accuracy"]} for r in rows])
    page = Path(write_report([run.folder.uri])).read_text()
    assert "begun with raykd 0.0.7" in page
    assert "temprature" in page and "searcher: no such field" in page
    assert "trials/00002/trial.json and 2 more: does not say started, role" in page
    assert "does not say accuracy_raw, seconds, lr, terms" in page
    assert {"history", "slices", "learning_curves", "confirmations"}.isdisjoint(missing_figures(page))
    assert "optimizer/lr" in page


@pytest.mark.slow
def test_a_run_of_another_vocabulary_still_gets_a_page_that_says_what_it_lacks(run: RunFiles) -> None:
    """As raykd 0.1 left it: stamp.json beside the study, other words in the study and in the rows."""
    folder = Path(run.folder.uri)
    for path in folder.rglob("provenance.json"):
        path.rename(path.with_name("stamp.json"))
    study = run.study()
    study["recipe"]["averaging"] = study["recipe"].pop("ema_decay")
    run.folder.write_yaml("study.yaml", study)
    words = {"params": "drawn", "errors": "tries"}
    for path in folder.glob("trials/*/trial.json"):
        rewrite_json(path, lambda row: {words.get(k, k): v for k, v in row.items()})
    page = Path(write_report([run.folder.uri])).read_text()
    assert "begun with raykd of a version that it does not say" in page
    assert "averaging: no such field" in page and "does not say params (an older version&#39;s run?)" in page
    assert {"history", "learning_curves", "confirmations", "timeline"}.isdisjoint(missing_figures(page))


def test_a_mixture_of_precisions_and_devices_is_named_with_its_trials(run: RunFiles) -> None:
    numbers = [row["number"] for row in run.trials() if row["epochs"]]
    for number in numbers[1:]:
        precision = "float32" if number in numbers[-3:] else "bfloat16"
        run.trial(number).write_json("environment.json", {"precision": precision, "device": "CPU"})
    [problem] = collect(run).problems  # the first trial does not say: it is not counted
    assert problem == (
        "trials and retrainings that do not compare exactly: their precision differs "
        f"({len(numbers) - 4} x bfloat16, 3 x float32)"
    )


def test_a_clock_that_was_set_back_gives_no_negative_hours(run: RunFiles) -> None:
    folder = Path(run.folder.uri)
    rewrite_json(folder / "trials/00000/trial.json", lambda row: row | {"seconds": -3600.0})
    rewrite_json(
        folder / "trials/00001/trial.json", lambda row: row | {"seconds": None, "ended": row["started"] - 60}
    )
    rewrite_json(folder / "trials/00000/epochs.json", lambda rows: [row | {"seconds": -9.0} for row in rows])
    rewrite_json(
        folder / "confirm/best-seed1/epochs.json", lambda rows: [rows[0] | {"seconds": -9.0}, rows[1]]
    )
    data = collect(run)
    assert [get_seconds(trial) for trial in data.trials[:2]] == [0.0, 0.0]
    assert min(row.seconds for row in [*data.epochs, *data.confirmations]) >= 0 and not data.problems


@pytest.mark.parametrize("content", ["", "name: [", "- 1\n- 2\n"])
def test_a_study_that_cannot_be_read_is_named(run: RunFiles, content: str) -> None:
    (Path(run.folder.uri) / "study.yaml").write_text(content)
    data = collect(run)
    assert data.problems[0].startswith("study.yaml: cannot be read")
    assert data.complete_trials() and "optimizer/lr" in data.space


def test_a_run_without_a_finished_trial_says_so(tmp_path: Path) -> None:
    run_files = RunFiles(str(tmp_path / "begun"))
    run_files.begin(fake_runs.make_study("begun").to_dict())
    page = Path(write_report([run_files.folder.uri])).read_text()
    assert "No trial has finished yet" in page
    assert missing_figures(page) == FIGURES


def test_a_folder_with_other_files_is_no_place_for_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    run_files = RunFiles(str(tmp_path / "begun"))
    run_files.begin(fake_runs.make_study("begun").to_dict())
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tensorboard, "write_events", interrupt)
        write_report([run_files.folder.uri], out)
    assert not out.exists()  # an interrupted report leaves nothing that the next one would refuse
    page = write_report([run_files.folder.uri], out)
    assert page == write_report([run_files.folder.uri], out) == str(out / "index.html")  # renewed
    (out / "index.html").write_text("<!doctype html>my own page")
    (tmp_path / "file").touch()
    for place, reason in (
        (out, "holds index.html, tables, and is no earlier report"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(UserError, match=reason):
            write_report([run_files.folder.uri], place)
    assert (out / "index.html").read_text().endswith("my own page")


@pytest.mark.slow
def test_no_run_is_bad_input_and_a_run_given_twice_is_one(
    run: RunFiles, verb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = verb("report", "nowhere")
    assert process.returncode == 2 and "nowhere: no run here" in process.stderr
    monkeypatch.chdir(Path(run.folder.uri).parent)
    assert write_report(["made", "made/"]) == f"{run.folder.uri}/report/index.html"


def test_events_are_written_once_for_each_trial(run: RunFiles) -> None:
    folder = Path(run.folder.uri) / "report/tensorboard"
    tensorboard.write_events(collect(run), folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/events.*")}
    tensorboard.write_events(collect(run), folder)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/events.*")} == before
    assert len(before) == sum(bool(run.epochs(row["number"])) for row in run.trials())
