"""Settings files as text: whatever they hold, they are read or refused in lines that can be read."""

import json
import os
import random
import re
import threading
from pathlib import Path

import pytest

from raykd.driver.train_one import read_recipe
from raykd.errors import MAX_LINE, MAX_SHOWN, UserError
from raykd.store.folder import Folder
from raykd.store.run_files import RunFiles
from raykd.study.comparison import read_study
from raykd.study.study import Study
from raykd.study.yaml_file import MAX_ALIASES, MAX_BYTES, TOO_DEEP, parse_yaml, read_yaml
from raykd.training import student

STUDIES = sorted((Path(__file__).parents[2] / "studies").rglob("*.yaml"))
RECIPE = """
data: {name: digits, images: 200}
student: {net: resnet8}
teacher: {net: resnet8, train: {epochs: 1, optimizer: {batch_size: 32}}}
method: {name: dcd, weights: {contrast: 1.0}}
epochs: 2
"""
PIECES = (
    b"\xff", b"\xc3\x28", b"\0", b"\x07", b"\x1b[31m", b"\xe2\x80\xa8", b"9" * 5000, b"0x" + b"f" * 5000,
    b"[" * 3000, b"{" * 3000, b"- " * 200, b"[1, 2]: 3", b"? [a, b]\n: c", b"? {a: b}\n: c", b"&a [*a]",
    b"*a", b"<<: *a", b"!!python/object:os.system x", b"!!binary aGk=", b"!!timestamp x", b"!!float x",
    b"!!int x", b"!!set {a}", b"!!omap [a: 1]", b"2001-99-99", b"2001-01-01", b".nan", b"-.inf", b"1e999",
    b"~", b"null", b"true", b"''", b'"\\ud800"', b'"\\e[31m"', b'"\\u2028"', b"%YAML 9.9\n---\n", b"---\n",
    b"...\n", b"\t", b"\r", b":", b"#", b"|", b">", b"@", b"`", b"%", b"&", b"*", b"!", b"x" * 100_000,
    b"- 1\n" * 100, b"1", b"-1", b"0", b"a/b: c", b"{}", b"[]", "é".encode(), "\U0001f600".encode(),
    b"\xef\xbb\xbf",
)  # fmt: skip


def mutate(content: bytes, rng: random.Random) -> bytes:
    """A settings file with one to three faults, as editors, disks and hands make them."""
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content) + 1)
        lines = content.split(b"\n")
        chosen = rng.randrange(len(lines))
        match rng.randrange(8):
            case 0:
                content = content[:place] + rng.choice(PIECES) + content[place:]
            case 1:
                content = content[:place] + rng.choice(PIECES) + content[place + 1 :]
            case 2:
                content = content[:place]
            case 3:
                content = b"\n".join([*lines[:chosen], rng.choice(PIECES), *lines[chosen + 1 :]])
            case 4:  # a value
                key, colon, _ = lines[chosen].partition(b": ")
                content = b"\n".join(
                    [*lines[:chosen], key + colon + rng.choice(PIECES), *lines[chosen + 1 :]]
                )
            case 5:
                content = b"\n".join([*lines[:chosen], lines[chosen], *lines[chosen:]])
            case 6:
                content = content.decode(errors="replace").encode(
                    rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"]), errors="replace"
                )
            case 7:
                words = re.findall(rb"[a-z_]+", content) or [b""]
                content = content.replace(rng.choice(words), rng.choice(PIECES), 1)
    return content


def read_mutations(path: Path, sources: list[bytes], number: int, read) -> int:
    """How many of so many mutated files are read; all others are refused in short lines."""
    rng, num_read = random.Random(13), 0
    for _ in range(number):
        path.write_bytes(mutate(rng.choice(sources), rng))
        try:
            read(path)
            num_read += 1
        except UserError as error:
            assert error.lines and sum(map(len, error.lines)) < 20_000
            for line in error.lines:
                assert len(line) <= MAX_LINE + 3 and line.isprintable(), line[:300]
    return num_read


@pytest.mark.slow
def test_a_mutated_study_is_read_or_refused(tmp_path: Path) -> None:
    sources = [path.read_bytes() for path in STUDIES]
    assert 10 < read_mutations(tmp_path / "study.yaml", sources, 300, read_study) < 200


def test_a_mutated_recipe_is_read_or_refused(tmp_path: Path) -> None:
    assert 3 < read_mutations(tmp_path / "recipe.yaml", [RECIPE.encode()], 100, read_recipe) < 70


def refuse(text: str) -> str:
    with pytest.raises(UserError) as error:
        parse_yaml(text, "study.yaml")
    (line,) = error.value.lines
    return line


def test_what_is_too_deep_too_long_or_repeats_is_refused_before_it_is_built() -> None:
    assert refuse("a: " + "[" * 3000) == f"study.yaml: line 1: {TOO_DEEP}"
    assert refuse("a: " + "[\n" * 3000) == f"study.yaml: line 16: {TOO_DEEP}"
    assert "a number of more than 100 digits" in refuse("a: " + "9" * 5000)
    assert "an integer of more than 64 bits" in refuse("a: 0x" + "f" * 5000)
    laughs = ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 60))]
    assert f"line {MAX_ALIASES // 2 + 2}: more than {MAX_ALIASES} aliases" in refuse("\n".join(laughs))
    assert "repeat too much" in refuse("a: &a [" + "x, " * 5000 + "x]\nb: [" + "*a, " * 9 + "*a]")
    assert "go in circles" in refuse("a: &a [*a]")


def test_what_is_no_plain_setting_is_refused() -> None:
    assert refuse("a: {? [1, 2] : 3}") == "study.yaml: a: a key should be a word, not (1, 2)"
    assert "a key should be a word, not 1" in refuse("1: 2")
    assert "control characters" in refuse('a: "\\e[31m"') and "control characters" in refuse('a: "\\ud800"')
    assert "a bytes is no setting" in refuse("a: !!binary aGk=")
    assert parse_yaml("a: 2001-01-01", "x") == {"a": "2001-01-01"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes("name: é".encode(encoding))
    assert read_yaml(path) == {"name": "é"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: 1\nname: é".encode("latin-1"), "line 2: not UTF-8"),
        ("name: x".encode("utf-16-le"), "UTF-16 without its mark"),
        (b"a: 1\n" * MAX_BYTES, "more than 256 KiB"),
        (b"", "should hold a map"),
        (b"- 1", "should hold a map"),
    ],
)
def test_what_is_no_settings_file_is_refused_in_one_line(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_yaml(path)
    (line,) = error.value.lines
    assert line.startswith(f"{path}: ") and expected in line
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"name: small",))
    writer.start()
    assert read_yaml(path) == {"name": "small"}
    writer.join()


def test_a_value_in_a_message_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    long = "x" * 100_000
    for text in (f"name: {long} {long}", f"{long}: 1", f"recipe: {{method: {{name: {long}}}}}"):
        path.write_text(text)
        with pytest.raises(UserError) as error:
            Study.read(path)
        for line in error.value.lines:
            assert line.count("x") <= MAX_SHOWN + 100, line
    with pytest.raises(UserError) as error:
        Study.parse({f"k{number}": 1 for number in range(1000)}, "study")
    assert len(error.value.lines) == 51 and error.value.lines[-1].startswith("... and ")


def test_overrides_are_read_within_the_same_bounds(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    for setting in ("epochs=[", "epochs=" + "[" * 3000, "epochs=" + "9" * 5000, 'data="\\e"', "epochs"):
        with pytest.raises(UserError) as error:
            read_recipe(path, (setting,))
        assert error.value.lines[0].startswith("--set ") and len(json.dumps(error.value.lines)) < 1000


def test_a_runs_own_files_are_read_within_the_same_bounds(tmp_path: Path) -> None:
    deep = b"a: " + 3000 * b"[" + 3000 * b"]"
    for content, message in (
        (deep, "lists and maps in one another"),
        (b"x: 1\n" * 60_000, "more than 256 KiB"),
    ):
        (tmp_path / "study.yaml").write_bytes(content)
        (tmp_path / "recipe.yaml").write_bytes(content)
        with pytest.raises(UserError, match=f"study.yaml: .*{message}"):
            RunFiles(str(tmp_path)).study()
        with pytest.raises(UserError, match=f"recipe.yaml: .*{message}"):
            student.read_recipe(Folder(str(tmp_path)))
