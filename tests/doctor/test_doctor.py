"""The doctor: what a node says of itself, and how it is judged. (A whole cluster: test_cluster.py.)"""

from pathlib import Path
from typing import Any

from raykd.doctor import findings, node
from raykd.doctor.findings import Health
from raykd.doctor.node import Asked


def asked(tmp_path: Path, **changes: Any) -> Asked:
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / node.TOKEN).write_text("word")
    plain = {"storage": str(tmp_path / "runs"), "token": "word", "root": str(tmp_path), "data": None}
    return Asked(**(plain | {"teacher": None} | changes))


def judged(facts: dict[str, Any]) -> dict[str, findings.Finding]:
    health = Health("here")
    findings.of_node(health, "node", facts)
    return {finding.what: finding for finding in health.findings}


def test_a_node_in_good_health(tmp_path: Path) -> None:
    found = judged(node.facts(asked(tmp_path, data={"name": "digits"})))
    bad = [finding for finding in found.values() if finding.level == "bad"]
    assert not bad and "1,293 training images of 10 classes" in found["data"].told
    assert found["storage"].told.endswith("is shared, and can be written from here")
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {node.TOKEN}


def test_what_is_wrong_with_a_node_is_named_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    teacher = tmp_path / "teacher.pth"
    teacher.write_bytes(b"weights")
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "storage": ({"token": "another"}, "what was written elsewhere is not seen"),
        "data": ({"data": {"name": "cifar100"}}, "no such file"),
        "teacher": ({"teacher": (str(teacher), "0" * 64)}, "its SHA-256 is not 0000"),
    }
    for what, (changes, told) in wrong.items():
        finding = judged(node.facts(asked(tmp_path, **changes)))[what]
        assert finding.level == "bad" and told in finding.told and finding.mend, finding
    nowhere = asked(
        tmp_path, storage=str(tmp_path / "file/runs"), root=str(tmp_path / "none"), teacher=("no.pth", None)
    )
    found = judged(node.facts(nowhere))
    assert {what for what, one in found.items() if one.level == "bad"} == {"storage", "data", "teacher"}
    assert "cannot be used from here" in found["storage"].told and "no folder" in found["data"].told


def test_another_version_or_too_little_space_is_told(tmp_path: Path) -> None:
    facts = node.facts(asked(tmp_path))
    facts["versions"] = facts["versions"] | {"ray": "2.1.0", "torch": "is missing"}
    facts |= {"memory": (2**30, 2**34), "disk": {"/tmp": 2**30}, "storage_speed": (3.0, 900.0)}
    found = judged(facts)
    assert found["versions"].level == "bad" and "ray 2.1.0, here" in found["versions"].told
    assert all(found[what].level == "poor" for what in ("memory", "disk", "storage speed"))


def test_no_cluster_at_the_address_is_a_red_line(verb: Any) -> None:
    done = verb("doctor", "--address", "127.0.0.1:9")
    assert done.returncode == 1 and "no Ray cluster answers at 127.0.0.1:9" in done.stdout, done.stderr
    assert "mend: start the head" in done.stdout and "Traceback" not in done.stderr
