"""The doctor: what a node reports, and how it is judged. (A whole cluster: test_cluster.py.)"""

from pathlib import Path
from typing import Any

from raykd.doctor import findings, node
from raykd.doctor.findings import Health
from raykd.doctor.node import NodeRequest
from raykd.driver.local_session import AUTH_VARIABLES, check_local_session
from raykd.study.study import Study


def make_request(tmp_path: Path, **changes: Any) -> NodeRequest:
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / node.TOKEN_FILE).write_text("word")
    plain = {"storage": str(tmp_path / "runs"), "token": "word", "data_root": str(tmp_path), "data": None}
    return NodeRequest(**(plain | {"weights": [], "plugins": {}} | changes))


def add_findings(facts: dict[str, Any]) -> dict[str, findings.Finding]:
    health = Health("here")
    findings.add_node_facts(health, "node", facts)
    return {finding.check: finding for finding in health.findings}


def test_a_node_in_good_health(tmp_path: Path) -> None:
    by_check = add_findings(node.collect_facts(make_request(tmp_path, data={"name": "digits"})))
    bad = [finding for finding in by_check.values() if finding.level == "error"]
    assert not bad and "1,293 training images of 10 classes" in by_check["data"].message
    assert by_check["storage"].message.endswith("is shared, and can be written from here")
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {node.TOKEN_FILE}


def test_what_is_wrong_with_a_node_is_named_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    teacher = tmp_path / "teacher.pth"
    teacher.write_bytes(b"weights")
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "storage": ({"token": "another"}, "what was written elsewhere is not seen"),
        "data": ({"data": {"name": "cifar100"}}, "no such file"),
        "teacher": ({"weights": [("teacher", str(teacher), "0" * 64)]}, "its SHA-256 is not 0000"),
    }
    for check, (changes, words) in wrong.items():
        finding = add_findings(node.collect_facts(make_request(tmp_path, **changes)))[check]
        assert finding.level == "error" and words in finding.message and finding.fix, finding
    nowhere = make_request(
        tmp_path,
        storage=str(tmp_path / "file/runs"),
        data_root=str(tmp_path / "none"),
        weights=[("teacher", "no.pth", None), ("student", "no.pth", None)],
    )
    by_check = add_findings(node.collect_facts(nowhere))
    assert {check for check, one in by_check.items() if one.level == "error"} == {
        "storage",
        "data",
        "teacher",
        "student",
    }
    assert (
        "cannot be used from here" in by_check["storage"].message and "no folder" in by_check["data"].message
    )


def test_how_trials_share_a_gpu_is_said(small: Path) -> None:
    alone, shared = (Study.read(small, (f"cluster/gpus={gpus}",)) for gpus in (1, 0.5))

    def add(study: Study | None, gpus: list[str], has_mps: bool) -> list[tuple[str, str]]:
        health = Health("here")
        findings.add_gpu_sharing(health, "node", {"gpus": gpus, "mps": has_mps}, study)
        return [(finding.level, finding.fix) for finding in health.findings]

    assert add(alone, ["H100"], False) == add(shared, [], False) == []
    assert add(shared, ["H100"], True) == [("ok", "")]
    for study in (shared, None):
        ((level, fix),) = add(study, ["H100"], False)
        assert level == "warning" and "nvidia-cuda-mps-control" in fix


def test_another_version_or_too_little_space_is_reported(tmp_path: Path) -> None:
    facts = node.collect_facts(make_request(tmp_path))
    facts["versions"] = facts["versions"] | {"ray": "2.1.0", "torch": "is missing"}
    facts |= {"memory": (2**30, 2**34), "disk": {"/tmp": 2**30}, "storage_speed": (3.0, 900.0)}
    by_check = add_findings(facts)
    assert by_check["versions"].level == "error" and "ray 2.1.0, here" in by_check["versions"].message
    assert all(by_check[check].level == "warning" for check in ("memory", "disk", "storage speed"))


def test_no_cluster_at_the_address_is_a_red_line(verb: Any, no_ray_session: None) -> None:
    done = verb("doctor", "--address", "127.0.0.1:9")
    assert done.returncode == 1 and "no Ray cluster answers at 127.0.0.1:9" in done.stdout, done.stderr
    assert "fix: start the head" in done.stdout and "Traceback" not in done.stderr


def find_mixtures(*changes: dict[str, Any], study: Study | None = None) -> dict[str, str]:
    """Warnings on nodes that differ from a plain one in these facts."""
    plain = {"gpus": [], "cpu": "CPU old, no bfloat16 in hardware", "cpu_bf16": False}
    health = Health("here")
    findings.add_mixtures(health, [plain | change for change in changes], study)
    assert all(finding.level == "warning" and finding.fix for finding in health.findings)
    return {finding.check: finding.message for finding in health.findings}


def test_nodes_on_which_trials_would_not_compare_are_named(small: Path) -> None:
    new = {"cpu": "CPU new, bfloat16 in hardware", "cpu_bf16": True}
    assert find_mixtures({}, {}) == {} and find_mixtures(new, new) == {}
    message = find_mixtures({}, new, new)["CPUs"]
    assert "1 x CPU old, no bfloat16 in hardware; 2 x CPU new, bfloat16 in hardware" in message
    with_gpus = [new | {"gpus": ["H100", "H100"]}, {"gpus": ["A100"]}]
    assert "(2 x H100, 1 x A100)" in find_mixtures(*with_gpus)["GPUs"]
    on_gpus = Study.read(small, ("cluster/gpus=1",))
    assert set(find_mixtures(*with_gpus, study=on_gpus)) == {"GPUs"}  # its CPUs do not matter
    on_cpus = Study.read(small, ("cluster/gpus=0",))
    assert set(find_mixtures(*with_gpus, study=on_cpus)) == {"CPUs"}
    float32 = Study.read(small, ("cluster/gpus=0", "precision=float32"))
    assert "of different kinds (1 x CPU new" in find_mixtures(*with_gpus, study=float32)["CPUs"]
    assert "of different kinds" in find_mixtures({}, {"cpu": "CPU older, no bfloat16 in hardware"})["CPUs"]


def test_a_long_temporary_folder_is_a_red_line_and_begins_no_run(
    verb: Any, small: Path, tmp_path: Path, monkeypatch: Any, no_ray_session: None
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("é" * 40)))
    for words in (["doctor"], ["launch", str(small)]):
        done = verb(*words)
        assert (
            "too long for Ray" in done.stdout + done.stderr and "RAY_TMPDIR=/tmp" in done.stdout + done.stderr
        )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs/small").exists()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_local_session(None)
    monkeypatch.setenv("RAY_TMPDIR", "/" + 200 * "x")
    check_local_session("10.0.0.1:6379")  # a cluster has its sockets already


def test_no_home_folder_is_one_line_before_a_run_begins(
    verb: Any, small: Path, tmp_path: Path, monkeypatch: Any, no_ray_session: None
) -> None:
    for name in (*AUTH_VARIABLES, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    done = verb("launch", str(small))
    assert done.returncode == 2 and done.stderr.endswith("that it can write to: set HOME to one\n")
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "runs/small").exists()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token of one's own")
    check_local_session(None)
