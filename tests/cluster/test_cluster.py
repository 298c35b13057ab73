"""cluster/: every file by the real tools as far as they go offline, and one real cluster on loopback."""

import copy
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
UP = ("aws", "gcp", "onprem")
MANIFESTS = ("raycluster", "rayjob")
TOOLS = Path(sys.executable).parent


def read_yaml(path: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(path)


def run_tool(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)


def test_scripts_and_dockerfile_pass_their_linters(tmp_path: Path) -> None:
    for script in sorted(CLUSTER.rglob("*.sh")):
        done = run_tool(TOOLS / "shellcheck", script)
        assert done.returncode == 0, done.stdout
        assert os.access(script, os.X_OK), script
    done = run_tool(TOOLS / "hadolint", "--no-color", CLUSTER / "Dockerfile")
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.sh"
    wrong.write_text("#!/bin/bash\nrm $1\n")
    assert run_tool(TOOLS / "shellcheck", wrong).returncode == 1


def parse_ray_starts(text: str) -> list[list[str]]:
    """The words after each `ray start` of a file, up to the command's end."""
    one_line_commands = re.sub(r"\\\n|\n {4,}(?=--)", " ", text)
    lines = (line for line in one_line_commands.splitlines() if not line.lstrip().startswith("#"))
    commands = [line.split("ray start", 1)[1] for line in lines if "ray start -" in line]
    return [[word for word in shlex.split(words) if word not in ("$@", "&")] for words in commands]


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{name}.yaml" for name in UP] + ["onprem.sh"])
def test_nodes_are_started_by_options_that_ray_knows(name: str) -> None:
    from ray.scripts.scripts import start

    started = parse_ray_starts((CLUSTER / name).read_text())
    assert len(started) == 2
    for words in started:
        params = start.make_context("start", words).params
        assert (params["num_cpus"], params["num_gpus"]) == ((0, 0) if params["head"] else (None, None))
        assert params["dashboard_host"] in (None, "127.0.0.1", "localhost")


def test_slurm_starts_nodes_by_options_that_ray_knows() -> None:
    from ray.scripts import symmetric_run
    from ray.scripts.scripts import start

    commands = re.findall(r'"\$\{ray\[@\]\}" (.*) "\$\{study\[@\]\}"', (CLUSTER / "slurm.sh").read_text())
    assert [words.split()[0] for words in commands] == ["--num-cpus=0", '--num-cpus="$cpus"']  # head, workers
    for options in commands:
        words = [re.sub(r'"\$.*"', "4", word) for word in options.split()]
        cluster_options = ["--address", "10.0.0.1:20001", "--min-nodes", "5"]
        assert symmetric_run.curate_and_validate_ray_start_args([*cluster_options, *words]) == words
        start.make_context("start", words)


@pytest.mark.parametrize("name", UP)
def test_ray_up_takes_the_file(name: str) -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read_yaml(CLUSTER / f"{name}.yaml")
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(copy.deepcopy(config) | {"max_worker": 3}))
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        assert "RAY_AUTH_MODE=token" in command or command.endswith("ray stop")
    assert "auth_token" in str(config["file_mounts"])
    spot = {"aws": "'MarketType': 'spot'", "gcp": "'provisioningModel': 'SPOT'", "onprem": ""}
    assert spot[name] in str(config)


@pytest.mark.parametrize(("cloud", "drain_seconds"), [("aws", "110"), ("gcp", "25")])
def test_ray_is_told_when_the_cloud_gives_notice(cloud: str, drain_seconds: str) -> None:
    """A cloud's metadata on loopback, as its manual has it, and a process in Ray's place."""
    has_notice = threading.Event()

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_aws = self.path == "/latest/meta-data/spot/instance-action"
            assert is_aws or self.path == "/computeMetadata/v1/instance/preempted"
            assert "Google" in self.headers.values() or "the token" in self.headers.values()
            self.send_response(404 if is_aws and not has_notice.is_set() else 200)
            self.end_headers()
            self.wfile.write(str(has_notice.is_set()).upper().encode())

        def do_PUT(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"the token")

        def log_message(self, *_: Any) -> None: ...

    waits = "while sleep 0.1; do :; done"
    ray = f'trap "echo ends; exit" TERM; echo $RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S; {waits}'
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever).start()
        env = os.environ | {"METADATA": f"http://127.0.0.1:{server.server_port}"}
        words = [str(CLUSTER / "spot.sh"), cloud, "bash", "-c", ray]
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline().strip() == drain_seconds
            assert process.poll() is None
            has_notice.set()
            assert process.communicate(timeout=20)[0] == "ends\n" and process.returncode == 0
        server.shutdown()


def cluster_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


# What KubeRay's reference of ray.io/v1 names (release 1.6); the CRD itself is not here to check against.
KNOWN = {
    "job": {"entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes",
            "ttlSecondsAfterFinished", "rayClusterSpec"},
    "cluster": {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
                "workerGroupSpecs"},
    "head": {"rayStartParams", "template"},
    "worker": {"groupName", "minReplicas", "replicas", "maxReplicas", "rayStartParams", "template"},
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_manifests_have_known_fields_and_a_head_that_runs_no_trials(name: str) -> None:
    manifest = read_yaml(CLUSTER / f"kuberay/{name}.yaml")
    assert manifest["apiVersion"] == "ray.io/v1" and manifest["kind"].lower() == name
    spec = cluster_spec(manifest)
    assert name == "raycluster" or set(manifest["spec"]) <= KNOWN["job"]
    assert set(spec) <= KNOWN["cluster"] and spec["authOptions"] == {"mode": "token"}
    assert f"ray=={spec['rayVersion']}" in (ROOT / "requirements.lock").read_text().split()
    assert set(spec["headGroupSpec"]) == KNOWN["head"]
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    for group in spec["workerGroupSpecs"]:
        assert set(group) == KNOWN["worker"]
        assert "spot" in str(group["template"]["spec"]["affinity"])
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        volumes = group["template"]["spec"]["volumes"]
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": "raykd-shared"}} in volumes


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_manifests_are_read_by_rays_autoscaler(name: str) -> None:
    from ray.autoscaler._private.kuberay import autoscaling_config
    from ray.autoscaler._private.util import validate_config

    spec = cluster_spec(read_yaml(CLUSTER / f"kuberay/{name}.yaml"))
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "raykd", "namespace": "default"}, "spec": spec}
    )
    validate_config(config)
    kinds = config["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0 and kinds["spot"]["resources"]["GPU"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_the_pods(name: str) -> None:
    import kubernetes_validate

    def check(template: dict[str, Any]) -> None:
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)

    spec = cluster_spec(read_yaml(CLUSTER / f"kuberay/{name}.yaml"))
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        check(group["template"])
        wrong = copy.deepcopy(group["template"])
        wrong["spec"]["containers"][0]["imagee"] = "x"
        with pytest.raises(kubernetes_validate.ValidationError, match="imagee"):
            check(wrong)


def test_no_token_or_password_lies_in_a_file() -> None:
    for path in (p for p in CLUSTER.rglob("*") if p.is_file()):
        text = path.read_text()
        assert not re.search(r"[0-9a-f]{32}|AKIA[0-9A-Z]{16}|(?i:password|secret)\s*[:=]\s*\S", text), path


def list_listen_addresses(processes: list[psutil.Process]) -> set[str]:
    """The addresses at which they listen."""
    addresses = set()
    for process in processes:
        for one in process.net_connections(kind="inet"):
            if one.status == psutil.CONN_LISTEN:
                addresses.add(one.laddr.ip.removeprefix("::ffff:"))
    return addresses


OWN_SESSION = """
import os
from raykd.driver.session import connect
from raykd.driver.resources import WorkerSize, list_nodes, worker_slots
import psutil
from test_cluster import list_listen_addresses

with connect(None):
    import ray
    from ray._private.authentication import authentication_token_setup as token

    assert worker_slots(list_nodes(), WorkerSize(1, 0)) >= 1
    ray.get(ray.remote(num_cpus=1)(lambda: 0).remote())  # a worker process listens too
    driver = psutil.Process()
    addresses = list_listen_addresses([driver, *driver.children(recursive=True)])
    assert addresses == {"127.0.0.1"}, addresses
    assert token.get_authentication_mode() == token.AuthenticationMode.TOKEN
assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
"""


@pytest.mark.slow
def test_a_session_of_ones_own_listens_on_loopback_alone() -> None:
    """In a process of its own: Ray reads the switch when it is imported."""
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    path = os.pathsep.join([str(Path(__file__).parent), env.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", OWN_SESSION],
        env=env | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Nodes:
    """A real cluster of two nodes on this machine."""

    address: str
    dashboard: str
    folder: Path
    env: dict[str, str]
    processes: tuple[subprocess.Popen[bytes], ...]

    def call(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env=self.env | env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.2)


def accepts_connections(host: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex((host, port)) == 0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """onprem.sh's head, which runs no trials, and a worker of two CPUs; each its own loopback address."""
    folder = Path(
        tempfile.mkdtemp(prefix="rk", dir="/tmp")
    )  # short: sockets' paths have 107 characters at most
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    port, dashboard = free_port(), free_port()
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        ports = (f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=100000000")
        log = (folder / f"{words[0]}.log").open("wb")
        started.append(
            subprocess.Popen(
                [str(CLUSTER / "onprem.sh"), *words, *ports],
                env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )
        )  # fmt: skip
        log.close()

    start(
        "head", "--node-ip-address=127.0.0.2", f"--port={port}", f"--dashboard-port={dashboard}",
        f"--temp-dir={folder}/h", f"--ray-client-server-port={free_port()}",
    )  # fmt: skip
    try:
        wait_for(
            lambda: accepts_connections("127.0.0.2", port) and accepts_connections("127.0.0.1", dashboard)
        )
        start("worker", f"127.0.0.2:{port}", "--node-ip-address=127.0.0.3", "--num-cpus=2")
        wait_for(lambda: "Ray runtime started" in (folder / "worker.log").read_text())
        yield Nodes(f"127.0.0.2:{port}", f"http://127.0.0.1:{dashboard}", folder, env, tuple(started))
    finally:
        kill(started)
        shutil.rmtree(folder, ignore_errors=True)


def kill(started: list[subprocess.Popen[bytes]]) -> None:
    """Kills exactly these processes and theirs; never `ray stop`, which ends every Ray of this user."""
    tops = [psutil.Process(top.pid) for top in started if top.poll() is None]
    processes = [process for top in tops for process in (*top.children(recursive=True), top)]
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=20)
    for top in started:
        top.wait()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_job_on_a_real_cluster_runs_a_study_to_its_end(nodes: Nodes, small: Path) -> None:
    run = nodes.folder / "runs/small"
    verb = (sys.executable, "-m", "raykd", "launch", str(small), "--storage", str(run.parent))
    submit = ("ray", "job", "submit", "--address", nodes.dashboard, "--")
    done = nodes.call(*submit, *verb, "--set", "budget/trials=1", "--set", "epochs=1", RAY_AUTH_MODE="token")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout and (run / "report/index.html").exists()
    status = nodes.call(sys.executable, "-m", "raykd", "status", str(run), "--json")
    assert '"state": "finished"' in status.stdout and '"complete": 1' in status.stdout
    token = (nodes.folder / "token").read_text()
    for path in (p for p in run.rglob("*") if p.is_file()):
        assert token.encode() not in path.read_bytes(), path
    wrong = nodes.call(*submit[:-1], "--", "true", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert wrong.returncode != 0 and "succeeded" not in wrong.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_plan_is_measured_on_a_worker(nodes: Nodes, small: Path) -> None:
    command = (sys.executable, "-m", "raykd", "plan", str(small), "--probe", nodes.address, "--json")
    done = nodes.call(*command, RAY_AUTH_MODE="token")
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads(done.stdout)
    assert plan["images_per_second"] > 0 and plan["speed_source"].startswith("6 steps on")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_doctor_examines_every_node_and_names_what_is_wrong(nodes: Nodes, small: Path) -> None:
    """The last of the cluster's tests: it stops the worker."""
    command = (sys.executable, "-m", "raykd", "doctor", str(small), "--address", nodes.address, "--json")
    done = nodes.call(*command, "--storage", str(nodes.folder / "runs"), RAY_AUTH_MODE="token")
    assert done.returncode == 0, done.stdout + done.stderr
    findings = json.loads(done.stdout)["findings"]
    lines = {(one["node"] == "cluster", one["check"]): one for one in findings}
    assert len({one["node"] for one in findings}) == 3  # two nodes and the cluster
    assert lines[True, "room"]["message"] == "a trial takes 1 CPU; 2 at once on 2 nodes, 2 CPUs, 0 GPUs"
    assert lines[True, "authentication"]["message"] == "by token"
    expected = {"versions", "devices", "memory", "disk", "storage", "data", "teacher", "clock", "network"}
    assert expected <= {check for whole, check in lines if not whole}
    assert "256 training images of 10 classes" in lines[False, "data"]["message"]
    assert all(one["fix"] for one in findings if one["level"] != "ok")

    nodes.processes[1].terminate()
    nodes.processes[1].wait(60)
    (nodes.folder / "file").write_text("")
    wrong = ("--storage", str(nodes.folder / "file/runs"), "--data", str(nodes.folder))
    done = nodes.call(*command, *wrong, "--set", "data={name: cifar100}", RAY_AUTH_MODE="token")
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads(done.stdout)
    errors = {one["check"]: one for one in report["findings"] if one["level"] == "error"}
    assert not report["can_run"] and set(errors) == {"room", "storage", "data"}
    assert all(one["fix"] for one in errors.values()) and "no such file" in errors["data"]["message"]
    gone = [one for one in report["findings"] if "left the cluster (it was 127.0.0.3)" in one["message"]]
    assert len(gone) == 1 and gone[0]["fix"]
