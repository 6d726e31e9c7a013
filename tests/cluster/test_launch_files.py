"""The files that start clusters: read by what reads them, agreeing with each other, no secrets."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.resources import CAN_GROW_BY, nodes_that_may_start
from tests.cluster.kuberay_fields import wrong_fields

ROOT = Path(__file__).resolve().parents[2]
LAUNCH, LOCAL = ROOT / "cluster" / "launch", ROOT / "cluster" / "local"
CLOUDS = ("aws", "gcp")
TEXT = [path for path in [*LAUNCH.iterdir(), *LOCAL.iterdir()] if path.is_file()]
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")


def read(name: str) -> Any:
    return yaml.safe_load((LAUNCH / name).read_text())


def prepared(cloud: str) -> dict[str, Any]:
    """As `ray up` reads it, up to where it would ask the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(read(f"{cloud}.yaml"))
    validate_config(config)
    return config


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_head_is_on_demand_and_gpu_nodes_come_on_spot_and_go_when_idle(cloud: str) -> None:
    config = prepared(cloud)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == head["resources"]["GPU"] == 0
    assert head["resources"]["on_demand"] >= 1
    assert head["max_workers"] == 0 and not on_spot(head["node_config"])
    assert types and config["idle_timeout_minutes"] <= 10
    for worker in types.values():
        assert worker["min_workers"] == 0 < worker["max_workers"] <= config["max_workers"]
        assert worker["resources"]["GPU"] >= 1 and "on_demand" not in worker["resources"]
        assert on_spot(worker["node_config"])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_spot_nodes_listen_for_the_warning_of_their_cloud_once_their_ray_runs(cloud: str) -> None:
    config = prepared(cloud)
    start = config["worker_start_ray_commands"][-1]
    assert start.index("ray start") < start.index(f"python -m cluster.spot_warning {cloud} ")
    assert not any("spot_warning" in command for command in config["head_start_ray_commands"])


def on_spot(node: dict[str, Any]) -> bool:
    aws = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    return aws or node.get("scheduling", {}).get("provisioningModel") == "SPOT"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_node_starts_with_the_token_and_the_share_that_sweeps_home_names(cloud: str) -> None:
    config = prepared(cloud)
    mounts = config["file_mounts"]
    for command in [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]:
        if "ray start" not in command:
            continue
        before, _ = command.split("ray start")
        assert "RAY_AUTH_MODE=token" in before
        assert re.search(r"RAY_AUTH_TOKEN_PATH=(\S+)", before)[1] in mounts  # type: ignore[index]
        assert re.search(r"\. (\S+);", before)[1] in mounts  # type: ignore[index]
        home = re.search(r"SWEEPS_HOME=([^\s;]+)", before)[1]  # type: ignore[index]
        assert any(f" {home} " in f"{line} " for line in config["initialization_commands"])
        assert f"--volume {home}:{home}" in config["docker"]["run_options"]
    head = config["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head  # reached through SSH
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_head_on_a_cloud_knows_what_nodes_may_be_started(
    cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = prepared(cloud)
    types = {**config["available_node_types"]}
    del types[config["head_node_type"]]
    said = re.search(r"CAN_GROW_BY='(.*?)'", config["head_start_ray_commands"][-1])
    assert said is not None
    monkeypatch.setenv(CAN_GROW_BY, said[1])
    assert nodes_that_may_start() == [
        {name: float(each["resources"][name]) for name in ("CPU", "GPU")}
        for each in types.values()
        for _ in range(each["max_workers"])
    ]


def test_the_head_on_kubernetes_knows_what_nodes_may_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    cluster = read("raycluster.yaml")
    cluster["metadata"]["namespace"] = "default"
    (worker,) = [
        kind
        for name, kind in _derive_autoscaling_config_from_ray_cr(cluster)[
            "available_node_types"
        ].items()
        if name != "headgroup"
    ]
    (head,) = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    env = {each["name"]: each["value"] for each in head["env"]}
    monkeypatch.setenv(CAN_GROW_BY, env[CAN_GROW_BY])
    each = {name: float(worker["resources"][name]) for name in ("CPU", "GPU")}
    assert nodes_that_may_start() == [each] * worker["max_workers"]


def test_rays_check_of_cloud_files_finds_a_field_that_is_none() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match="idle_timeout_minute"):
        validate_config(prepare_config({**read("aws.yaml"), "idle_timeout_minute": 5}))


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_kuberay_manifests_have_only_fields_of_the_v1_api(kind: str) -> None:
    manifest = read(f"{kind.lower()}.yaml")
    assert manifest["kind"] == kind
    assert wrong_fields(manifest, kind, kind) == []
    broken = deepcopy(manifest)
    spec = broken["spec"].get("rayClusterSpec", broken["spec"])
    spec["authOptions"]["mode"] = "tokens"
    spec["workerGroupSpecs"][0]["minReplica"] = 0
    spec["headGroupSpec"]["resources"]["CPU"] = 0
    assert len(wrong_fields(broken, kind, kind)) == 3


def test_rays_autoscaler_reads_the_kuberay_cluster_as_meant() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    cluster = read("raycluster.yaml")
    cluster["metadata"]["namespace"] = "default"
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["headgroup"]["resources"]["on_demand"] >= 1
    assert types["gpu-spot"]["min_workers"] == 0 < types["gpu-spot"]["max_workers"]
    assert types["gpu-spot"]["resources"]["GPU"] >= 1


def test_the_job_and_the_cluster_on_kubernetes_are_the_same_cluster_on_the_same_claim() -> None:
    job, cluster, claim = read("rayjob.yaml"), read("raycluster.yaml"), read("storage.yaml")
    spec = cluster["spec"]
    assert job["spec"]["rayClusterSpec"] == spec
    assert job["spec"]["entrypoint"].startswith("python sweeps/mixing.py ")
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        claims = {v["name"]: v.get("persistentVolumeClaim") for v in pod["volumes"]}
        (container,) = pod["containers"]
        home = {each["name"]: each["value"] for each in container["env"]}["SWEEPS_HOME"]
        (mount,) = [m["name"] for m in container["volumeMounts"] if m["mountPath"] == home]
        assert claims[mount] == {"claimName": claim["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_a_pod_on_kubernetes_is_given_longer_than_ray_takes_to_drain_its_node() -> None:
    from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S as DRAIN_SECONDS

    (workers,) = read("raycluster.yaml")["spec"]["workerGroupSpecs"]
    assert workers["template"]["spec"]["terminationGracePeriodSeconds"] > DRAIN_SECONDS


def test_images_have_the_versions_of_the_constraints_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    docker = (LAUNCH / "Dockerfile").read_text()
    installs = re.findall(r"pip install (.*?)(?:\\$|&&|$)", docker, re.M)
    assert len(installs) == 2
    asked = [*project["dependencies"]]
    for install in installs:
        assert install.startswith("-c constraints.txt ")
        for word in install.removeprefix("-c constraints.txt ").split():
            extra = re.search(r"\.\[(\w+)\]", word)
            asked += project["optional-dependencies"][extra[1]] if extra else []
            asked += [] if extra or word == "-e" else [word]
    names = {normal(re.match(r"[\w.-]+", each)[0]) for each in asked}  # type: ignore[index]
    assert names - pins().keys() == set()
    for path in TEXT:
        for name, version in re.findall(r"\b([\w-]+)==([\w.]+)", path.read_text()):
            assert pins()[normal(name)] == version, path.name
    python = re.search(r"^FROM python:(\d+\.\d+)", docker, re.M)
    assert python and python[1] == "3.11" and project["requires-python"] == ">=3.11,<3.13"
    for name in ("raycluster.yaml", "rayjob.yaml"):
        assert re.search(r'rayVersion: "(.*)"', (LAUNCH / name).read_text())[1] == pins()["ray"]  # type: ignore[index]
    tags = {tag for p in TEXT for tag in re.findall(r"mixing-sweeps:([\w.]+)", p.read_text())}
    assert tags == {project["version"]}


def test_the_compose_file_opens_one_port_to_this_host_alone_and_pins_its_images() -> None:
    compose = read("compose.yaml")
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert ports.pop("mlflow") == ["127.0.0.1:5000:5000"]
    assert not any(ports.values())
    for service in compose["services"].values():
        assert "network_mode" not in service
        image = service.get("image")
        assert image is None or re.search(r":v?\d+\.\d+", image), image
    stages = re.findall(r"^FROM .* AS (\w+)", (LAUNCH / "Dockerfile").read_text(), re.M)
    assert compose["services"]["mlflow"]["build"]["target"] in stages


def test_every_secret_of_the_compose_file_comes_from_the_environment_and_must_be_set() -> None:
    compose = read("compose.yaml")
    wanted = set()
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                match = re.fullmatch(r"\$\{(\w+):\?.*\}", value)
                assert match, f"{name}: {key}"
                wanted.add(match[1])
    example = [line for line in (LAUNCH / "example.env").read_text().splitlines() if "=" in line]
    assert {line.removesuffix("=") for line in example} == wanted  # named, and empty
    assert ".env" in (ROOT / ".gitignore").read_text().split()


@pytest.mark.parametrize("path", TEXT, ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b[0-9a-f]{32,}\b|AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY", text)
    assert not re.search(r"://[^/\s:@]+:[^/\s:@]+@", text)


@pytest.mark.parametrize(
    "path",
    [*sorted(LOCAL.glob("*.sh")), ROOT / "benchmarks" / "gpu.sh"],
    ids=lambda path: path.name,
)
def test_shell_scripts_pass_shellcheck(path: Path) -> None:
    beside = Path(sys.executable).parent / "shellcheck"
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed (make installs it)")
    done = subprocess.run([program, "-x", "-P", "SCRIPTDIR", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
