"""The cache of a teacher's outputs: shared, bounded, not trusted when damaged, equal to the live teacher."""

import json
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
from raykd.batch import MethodBatch, MethodContext
from raykd.models import make
from raykd.models.timm_net import TimmNet
from raykd.teachers.cache_file import PAGE_BYTES, CacheFile, open_cache_file
from raykd.teachers.cached import CACHEABLE, CachedTeacher, add_cache
from raykd.teachers.ensemble import EnsembleTeacher
from raykd.teachers.teacher import LiveTeacher, Teacher

CPU = torch.device("cpu")
ROWS, WIDTH, PLENTY = 400, 10, 2**30

WRITER = """
import sys, pathlib, numpy as np
from raykd.teachers.cache_file import open_cache_file
cache = open_cache_file(pathlib.Path(sys.argv[1]), "shared", 400, 10, 2**30)
rows, offset = np.arange(400), float(sys.argv[2])
print("ready", flush=True)
for turn in range(int(sys.argv[3])):
    cache.write(rows, (rows[:, None] + offset * np.ones((1, 5))).astype(np.float16).view(np.uint8))
"""


def open_cache(folder: Path, key: str = "a", max_bytes: int = PLENTY) -> CacheFile:
    return open_cache_file(folder, key, ROWS, WIDTH, max_bytes)


def make_values(*rows: int) -> Any:
    return (np.arange(WIDTH // 2) + np.array(rows)[:, None]).astype(np.float16).view(np.uint8)


def valid(cache: CacheFile, *rows: int) -> list[bool]:
    return [bool(is_valid) for is_valid in cache.read(np.array(rows))[1]]


def start_writer(folder: Path, offset: float, turns: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(offset), str(turns)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_was_written_is_valid_for_every_process(tmp_path: Path) -> None:
    ours, theirs = open_cache(tmp_path), open_cache(tmp_path)
    assert valid(ours, 0, 3, 399) == [False] * 3
    ours.write(np.array([3, 399]), make_values(3, 399))
    values, is_valid = theirs.read(np.array([399, 0, 3]))
    assert is_valid.tolist() == [True, False, True]
    assert np.array_equal(values[[0, 2]], make_values(399, 3))
    ours.seconds_per_view = 0.25
    assert theirs.seconds_per_view == 0.25
    assert (tmp_path / "a.cache").stat().st_blocks * 512 < PAGE_BYTES * 8  # only what was written takes space


def test_a_damaged_row_is_invalid_and_is_written_anew(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    cache.write(np.array([1, 2]), make_values(1, 2))
    with (tmp_path / "a.cache").open("r+b") as file:
        file.seek(PAGE_BYTES + 2 * 16 + 3)
        file.write(b"\xff")
    assert valid(cache, 1, 2) == [True, False]
    cache.write(np.array([2]), make_values(2))
    assert valid(open_cache(tmp_path), 1, 2) == [True, True]


@pytest.mark.parametrize("harm", ["truncated", "grown", "foreign", "empty", "another version"])
def test_a_file_that_cannot_be_trusted_is_made_anew(tmp_path: Path, harm: str) -> None:
    open_cache(tmp_path).write(np.array([1]), make_values(1))
    path = tmp_path / "a.cache"
    whole = path.read_bytes()
    spoilt = {
        "truncated": whole[:-1],
        "grown": whole + b"\0",
        "foreign": os.urandom(len(whole)),
        "empty": b"",
        "another version": whole.replace(b"outputs, 2", b"outputs, 0", 1),
    }
    path.write_bytes(spoilt[harm])
    cache = open_cache(tmp_path)
    assert valid(cache, 1) == [False] and path.stat().st_size == len(whole)
    cache.write(np.array([1]), make_values(1))
    assert valid(open_cache(tmp_path), 1) == [True]


@pytest.mark.slow
def test_two_processes_write_the_same_rows_at_once_and_one_is_killed(tmp_path: Path) -> None:
    mortal, steady = start_writer(tmp_path, 0.0, 10_000), start_writer(tmp_path, 1000.0, 60)
    cache = open_cache_file(tmp_path, "shared", ROWS, WIDTH, PLENTY)
    rows = np.arange(ROWS)
    for turn in range(60):
        content, is_valid = cache.read(rows)
        values = content.copy().view(np.float16)
        is_whole = (values == rows[:, None]).all(1) | (values == np.float16(1000) + rows[:, None]).all(1)
        assert is_whole[is_valid].all(), "a torn row was trusted"
        if turn == 20:
            os.kill(mortal.pid, signal.SIGKILL)
    assert steady.wait(60) == 0 and mortal.wait(60) == -signal.SIGKILL
    for process in (steady, mortal):
        process.stdout and process.stdout.close()
    content, is_valid = cache.read(rows)
    assert is_valid.all() and (content.copy().view(np.float16)[:, 0] == np.float16(1000) + rows).all()


def test_cache_files_take_no_more_than_their_share(tmp_path: Path) -> None:
    few = PAGE_BYTES + 10 * 16
    cache = open_cache(tmp_path, max_bytes=few)
    cache.write(np.array([9, 10]), make_values(9, 10))
    assert valid(cache, 9, 10) == [True, False]  # what does not fit is computed live
    open_cache(tmp_path, "b", max_bytes=few)
    assert (tmp_path / "a.cache").exists(), "in use"
    del cache
    open_cache(tmp_path, "c", max_bytes=few)
    assert not (tmp_path / "a.cache").exists() and (tmp_path / "c.cache").exists()


def test_a_full_disk_is_an_error_and_kills_nobody(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE_BYTES + 16, before[1]))
    try:
        with pytest.raises(OSError):
            cache.write(np.array([0, 300]), make_values(0, 300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert valid(cache, 0, 300) == [True, False]


def load_digits(**settings: Any) -> tuple[data.DataSpec, data.Dataset[Any]]:
    spec = data.Digits(**{"images": 40, **settings})
    return spec, data.load(spec, Path("unused"), False)


def make_teacher(seed: int = 5) -> LiveTeacher:
    torch.manual_seed(seed)
    return LiveTeacher(make("resnet8", 10), 32, CPU, False)


def make_batch(spec: data.DataSpec, dataset: data.Dataset[Any], images: list[int], seed: int = 0) -> Any:
    positions = torch.tensor(images)
    source = spec.make_source(dataset, CPU)
    view_ids = data.draw_view_ids(1, seed, 64, source)[positions]
    (batch,) = source.batches(positions[None], view_ids[None])
    return batch


def with_cache(live: LiveTeacher, spec: data.DataSpec, dataset: data.Dataset[Any]) -> Teacher:
    teacher = add_cache(live, spec.index_views(dataset), 1.0, CPU)
    assert isinstance(teacher, CachedTeacher)
    return teacher


@pytest.mark.parametrize("rotations", [1, 4])
def test_cached_outputs_are_the_live_ones_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotations: int
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    spec, dataset = load_digits(rotations=rotations)
    live, first, second = (
        make_teacher(),
        with_cache(make_teacher(), spec, dataset),
        with_cache(make_teacher(), spec, dataset),
    )
    first_batch, second_batch = make_batch(spec, dataset, [3, 1, 7]), make_batch(spec, dataset, [1, 9, 3, 7])
    expected, computed = live.get_outputs(second_batch), first.get_outputs(first_batch)
    cached, mixed = second.get_outputs(first_batch), second.get_outputs(second_batch)
    assert torch.equal(computed.logits, cached.logits) and torch.equal(computed.embedding, cached.embedding)
    torch.testing.assert_close(mixed.logits, expected.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mixed.embedding, expected.embedding, rtol=1e-3, atol=1e-3)
    assert torch.equal(mixed.head.weight, expected.head.weight) and mixed.maps == ()
    assert (first.cache_stats.hits, first.cache_stats.misses) == (0, 3 * rotations)
    assert (second.cache_stats.hits, second.cache_stats.misses) == (6 * rotations, rotations)
    assert second.cache_stats.seconds_saved > 0


@pytest.mark.slow
def test_the_cache_is_of_these_weights_pixels_and_views_whatever_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    live = make_teacher()
    _, base = load_digits()
    keys = {
        live.compute_cache_key(spec.index_views(load_digits()[1]))
        for spec in (load_digits(holdout=h)[0] for h in (0, 0.5))
    }
    whole = data.Digits()
    assert whole.index_views(base) is not None
    assert len(keys | {live.compute_cache_key(whole.index_views(base))}) == 1
    others = [load_digits(padding=3), load_digits(flip=True), load_digits(rotations=4)]
    keys |= {live.compute_cache_key(spec.index_views(dataset)) for spec, dataset in others}
    keys.add(make_teacher(6).compute_cache_key(whole.index_views(base)))
    assert len(keys) == 5
    search, confirm = load_digits(holdout=0.5), load_digits(holdout=0)
    with_cache(live, *search).get_outputs(make_batch(*search, list(range(20))))
    again = with_cache(live, *confirm)
    place = {int(p): i for i, p in enumerate(confirm[1].train.origin.positions)}
    same_images = [place[int(p)] for p in search[1].train.origin.positions]
    view_ids = data.draw_view_ids(1, 0, 64, search[0].make_source(search[1], CPU))[:20]
    (batch,) = (
        confirm[0].make_source(confirm[1], CPU).batches(torch.tensor(same_images)[None], view_ids[None])
    )
    again.get_outputs(batch)
    assert (again.cache_stats.hits, again.cache_stats.misses) == (20, 0)


def test_the_cache_of_a_librarys_net_is_of_the_images_that_it_sees_the_librarys_version_and_raykds_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = make("timm/resnet10t", 10, {"size": 32})
    assert isinstance(net, TimmNet)
    spec, dataset = load_digits()
    index = spec.index_views(dataset)
    assert index is not None
    settings = json.dumps(["timm/resnet10t", 10, {"size": 32}])

    def compute_key(**config: Any) -> str:
        same_weights = TimmNet(net.net, settings, net.config._replace(**config))
        return LiveTeacher(same_weights, 32, CPU, False).compute_cache_key(index)

    keys = [compute_key(), compute_key(mean=(0.5,) * 3), compute_key(std=(0.5,) * 3)]
    keys += [compute_key(size=64), compute_key(interpolation="bilinear")]
    assert compute_key() == keys[0]
    monkeypatch.setattr("raykd.models.foreign.version", lambda library: f"another {library}")
    keys.append(compute_key())
    monkeypatch.setattr("raykd.teachers.teacher.hash_code", lambda folder: "other code")
    assert len({*keys, compute_key()}) == 7


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in methods.names() if frozenset() < methods.get_class(n).needs <= CACHEABLE]
)
def test_a_method_learns_the_same_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    spec, dataset = load_digits(rotations=4 if name in ("pckd", "sskd") else 1)
    batch = make_batch(spec, dataset, list(range(8)))
    teachers: list[Any] = [make_teacher(), *(with_cache(make_teacher(), spec, dataset) for _ in range(2))]
    reads_each = "each_logits" in methods.get_class(name).needs
    if reads_each:
        teachers = [EnsembleTeacher([teacher, teacher], [1.0, 1.0]) for teacher in teachers]
    torch.manual_seed(1)
    student = make("resnet14", 10)
    context = MethodContext(student.shapes(32), teachers[0].shapes, dataset.train.labels)
    terms, half = [], torch.tensor(0.5)
    for teacher in teachers:
        torch.manual_seed(2)
        method = methods.make(name, context, methods.get_config_class(name)())
        with torch.no_grad():
            student_outputs, teacher_outputs = student.eval()(batch.images), teacher.get_outputs(batch)
            terms.append(
                method(
                    MethodBatch(
                        batch.labels,
                        batch.index,
                        half,
                        student_outputs,
                        teacher_outputs,
                        spec.rotations,
                        peers=(student_outputs,) if reads_each else (),
                    )
                )
            )
    assert terms[1] == terms[2] and terms[0].keys() == terms[1].keys()
    for term, value in terms[0].items():
        torch.testing.assert_close(terms[1][term], value, rtol=5e-3, atol=1e-3)


def test_where_no_cache_can_be_the_teacher_runs_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "file"))
    live, (spec, dataset) = make_teacher(), load_digits()
    for _ in range(2):  # as two trials of a process: it is said once
        assert add_cache(live, spec.index_views(dataset), 1.0, CPU) is live
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ["no cache of the teacher's outputs"]
    assert (
        add_cache(live, spec.index_views(dataset), 0.0, CPU) is live
        and add_cache(live, None, 1.0, CPU) is live
    )


def test_a_single_missing_view_is_answered_as_in_a_larger_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    spec, dataset = load_digits()
    first, second = (with_cache(make_teacher(), spec, dataset) for _ in range(2))
    images = list(range(16))
    first.get_outputs(make_batch(spec, dataset, images[1:]))
    mixed = second.get_outputs(make_batch(spec, dataset, images))
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "empty"))
    whole = with_cache(make_teacher(), spec, dataset).get_outputs(make_batch(spec, dataset, images))
    assert torch.equal(mixed.logits, whole.logits) and torch.equal(mixed.embedding, whole.embedding)
    assert (second.cache_stats.hits, second.cache_stats.misses) == (15, 1)
