"""The table of a teacher's answers: shared, bounded, not trusted when damaged, equal to the live teacher."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raykd import data, methods
from raykd.batch import Setting, Step
from raykd.models import make
from raykd.teachers.cache_file import PAGE, Table, open_table
from raykd.teachers.cached import KEPT, TabledTeacher, tabled
from raykd.teachers.teacher import Answers, LiveTeacher

CPU = torch.device("cpu")
ROWS, WIDTH, PLENTY = 400, 5, 2**30

WRITER = """
import sys, pathlib, numpy as np
from raykd.table import open_table
table = open_table(pathlib.Path(sys.argv[1]), "shared", 400, 5, 2**30)
rows, own = np.arange(400), float(sys.argv[2])
print("ready", flush=True)
for turn in range(int(sys.argv[3])):
    table.write(rows, (rows[:, None] + own * np.ones((1, 5))).astype(np.float16))
"""


def opened(folder: Path, key: str = "a", most: int = PLENTY) -> Table:
    return open_table(folder, key, ROWS, WIDTH, most)


def numbers(*rows: int) -> Any:
    return (np.arange(WIDTH) + np.array(rows)[:, None]).astype(np.float16)


def there(table: Table, *rows: int) -> list[bool]:
    return [bool(found) for found in table.read(np.array(rows))[1]]


def writer(folder: Path, own: float, turns: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(own), str(turns)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_was_written_is_there_for_every_process(tmp_path: Path) -> None:
    ours, theirs = opened(tmp_path), opened(tmp_path)
    assert there(ours, 0, 3, 399) == [False] * 3
    ours.write(np.array([3, 399]), numbers(3, 399))
    values, found = theirs.read(np.array([399, 0, 3]))
    assert found.tolist() == [True, False, True]
    assert np.array_equal(values[[0, 2]], numbers(399, 3))
    ours.pace = 0.25
    assert theirs.pace == 0.25
    assert (tmp_path / "a.table").stat().st_blocks * 512 < PAGE * 8  # only what was written takes space


def test_a_damaged_row_is_not_there_and_is_written_anew(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.write(np.array([1, 2]), numbers(1, 2))
    with (tmp_path / "a.table").open("r+b") as file:
        file.seek(PAGE + 2 * 16 + 3)
        file.write(b"\xff")
    assert there(table, 1, 2) == [True, False]
    table.write(np.array([2]), numbers(2))
    assert there(opened(tmp_path), 1, 2) == [True, True]


@pytest.mark.parametrize("harm", ["truncated", "grown", "foreign", "empty", "another version"])
def test_a_file_that_cannot_be_trusted_is_made_anew(tmp_path: Path, harm: str) -> None:
    opened(tmp_path).write(np.array([1]), numbers(1))
    path = tmp_path / "a.table"
    whole = path.read_bytes()
    spoilt = {
        "truncated": whole[:-1],
        "grown": whole + b"\0",
        "foreign": os.urandom(len(whole)),
        "empty": b"",
        "another version": whole.replace(b"answers, 1", b"answers, 0", 1),
    }
    path.write_bytes(spoilt[harm])
    table = opened(tmp_path)
    assert there(table, 1) == [False] and path.stat().st_size == len(whole)
    table.write(np.array([1]), numbers(1))
    assert there(opened(tmp_path), 1) == [True]


@pytest.mark.slow
def test_two_processes_write_the_same_rows_at_once_and_one_is_killed(tmp_path: Path) -> None:
    mortal, steady = writer(tmp_path, 0.0, 10_000), writer(tmp_path, 1000.0, 60)
    table = open_table(tmp_path, "shared", ROWS, WIDTH, PLENTY)
    rows = np.arange(ROWS)
    for turn in range(60):
        values, found = table.read(rows)
        known = (values == rows[:, None]).all(1) | (values == np.float16(1000) + rows[:, None]).all(1)
        assert known[found].all(), "a torn row was trusted"
        if turn == 20:
            os.kill(mortal.pid, signal.SIGKILL)
    assert steady.wait(60) == 0 and mortal.wait(60) == -signal.SIGKILL
    for process in (steady, mortal):
        process.stdout and process.stdout.close()
    values, found = table.read(rows)
    assert found.all() and (values[:, 0] == np.float16(1000) + rows).all()


def test_tables_take_no_more_than_their_share(tmp_path: Path) -> None:
    few = PAGE + 10 * 16
    table = opened(tmp_path, most=few)
    table.write(np.array([9, 10]), numbers(9, 10))
    assert there(table, 9, 10) == [True, False]  # what does not fit is answered live
    opened(tmp_path, "b", most=few)
    assert (tmp_path / "a.table").exists(), "in use"
    del table
    opened(tmp_path, "c", most=few)
    assert not (tmp_path / "a.table").exists() and (tmp_path / "c.table").exists()


def test_a_full_disk_is_an_error_and_no_death(tmp_path: Path) -> None:
    table = opened(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE + 16, before[1]))
    try:
        with pytest.raises(OSError):
            table.write(np.array([0, 300]), numbers(0, 300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert there(table, 0, 300) == [True, False]


def digits(**settings: Any) -> tuple[data.DataSpec, data.Dataset[Any]]:
    spec = data.Digits(**{"images": 40, **settings})
    return spec, data.load(spec, Path("unused"), False)


def teacher(seed: int = 5) -> LiveTeacher:
    torch.manual_seed(seed)
    return LiveTeacher(make("resnet8", 10), 32, CPU, False)


def batch(spec: data.DataSpec, dataset: data.Dataset[Any], images: list[int], seed: int = 0) -> Any:
    positions = torch.tensor(images)
    source = spec.source(dataset, CPU)
    views = data.draw(1, seed, 64, source)[positions]
    (made,) = source.batches(positions[None], views[None])
    return made


def in_table(live: LiveTeacher, spec: data.DataSpec, dataset: data.Dataset[Any]) -> Answers:
    made = tabled(live, spec.catalogue(dataset), 1.0, CPU)
    assert isinstance(made, TabledTeacher)
    return made


@pytest.mark.parametrize("rotations", [1, 4])
def test_what_is_kept_is_the_live_answer_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotations: int
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    spec, dataset = digits(rotations=rotations)
    live, first, second = teacher(), in_table(teacher(), spec, dataset), in_table(teacher(), spec, dataset)
    some, more = batch(spec, dataset, [3, 1, 7]), batch(spec, dataset, [1, 9, 3, 7])
    expected, fresh, kept, mixed = live.view(more), first.view(some), second.view(some), second.view(more)
    assert torch.equal(fresh.logits, kept.logits) and torch.equal(fresh.embedding, kept.embedding)
    torch.testing.assert_close(mixed.logits, expected.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mixed.embedding, expected.embedding, rtol=1e-3, atol=1e-3)
    assert torch.equal(mixed.head.weight, expected.head.weight) and mixed.maps == ()
    assert (first.tally.hits, first.tally.misses) == (0, 3 * rotations)
    assert (second.tally.hits, second.tally.misses) == (6 * rotations, rotations)
    assert second.tally.seconds_saved > 0


def test_the_table_is_of_these_weights_pixels_and_views_whatever_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    live = teacher()
    _, base = digits()
    keys = {live.key(spec.catalogue(digits()[1])) for spec in (digits(holdout=h)[0] for h in (0, 0.5))}
    whole = data.Digits()
    assert whole.catalogue(base) is not None
    assert len(keys | {live.key(whole.catalogue(base))}) == 1
    others = [digits(padding=3), digits(flip=True), digits(rotations=4)]
    keys |= {live.key(spec.catalogue(dataset)) for spec, dataset in others}
    keys.add(teacher(6).key(whole.catalogue(base)))
    assert len(keys) == 5
    search, confirm = digits(holdout=0.5), digits(holdout=0)
    in_table(live, *search).view(batch(*search, list(range(20))))
    again = in_table(live, *confirm)
    place = {int(p): i for i, p in enumerate(confirm[1].train.origin.positions)}
    same = [place[int(p)] for p in search[1].train.origin.positions]
    views = data.draw(1, 0, 64, search[0].source(search[1], CPU))[:20]
    (made,) = confirm[0].source(confirm[1], CPU).batches(torch.tensor(same)[None], views[None])
    again.view(made)
    assert (again.tally.hits, again.tally.misses) == (20, 0)


@pytest.mark.parametrize("name", [n for n in methods.names() if methods.module(n).Method.needs <= KEPT])
def test_a_method_learns_the_same_from_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    spec, dataset = digits(rotations=4 if name in ("pckd", "sskd") else 1)
    live, one = teacher(), batch(spec, dataset, list(range(8)))
    tables = [in_table(teacher(), spec, dataset) for _ in range(2)]
    torch.manual_seed(1)
    student = make("resnet14", 10)
    setting = Setting(student.shapes(32), live.shapes, dataset.train.labels)
    terms = []
    for answers in (live, *tables):
        torch.manual_seed(2)
        method = methods.make(name, setting, methods.config(name)())
        with torch.no_grad():
            step = Step(
                one.labels, one.index, 0.5, student.eval()(one.images), answers.view(one), spec.rotations
            )
            terms.append(method(step))
    assert terms[1] == terms[2] and terms[0].keys() == terms[1].keys()
    for term, value in terms[0].items():
        torch.testing.assert_close(terms[1][term], value, rtol=5e-3, atol=1e-3)


def test_where_no_table_can_be_the_teacher_answers_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "file"))
    live, (spec, dataset) = teacher(), digits()
    assert tabled(live, spec.catalogue(dataset), 1.0, CPU) is live and len(caplog.records) == 1
    assert tabled(live, spec.catalogue(dataset), 0.0, CPU) is live and tabled(live, None, 1.0, CPU) is live
