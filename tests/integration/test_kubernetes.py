"""What `deploy/kubernetes` has: rendered by kubectl, held against the published schemas, and true of the fleet."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.dashboard import RULE_HEAD
from schemas import topology
from schemas.config import load
from tests.support import checkers, node

FOLDER = checkers.ROOT / "deploy" / "kubernetes"
OVERLAYS = ("base", "one-machine", "production")
SHIPPED = checkers.ROOT / "deploy" / "fleet.toml"
# Operators' kinds, and where their types are; of RabbitmqCluster none are published as a package.
TYPED = {
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
    "PodMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
    "PrometheusRule": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
}
UNTYPED = "RabbitmqCluster"


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    """Return each overlay as kubectl renders it."""
    return {name: checkers.run("kubectl", "kustomize", FOLDER / name) for name in OVERLAYS}


@pytest.fixture(scope="module")
def objects(rendered: dict[str, str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return each overlay's objects by kind and name."""
    return {
        overlay: {f"{each['kind']} {each['metadata']['name']}": each for each in checkers.documents(text)}
        for overlay, text in rendered.items()
    }


def validated(text: str, folder: Path, *, ends: int = 0) -> str:
    file = folder / "objects.yaml"
    file.write_text(text, encoding="utf-8")
    return checkers.run("kubernetes-validate", "--strict", "--quiet", file, ends=ends)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_are_as_kubernetes_wants_them(rendered: dict[str, str], overlay: str, tmp_path: Path) -> None:
    said = validated(rendered[overlay], tmp_path)
    assert set(re.findall(r"schema for kind (\w+)", said)) <= {*TYPED, UNTYPED}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("livenessProbe:", "livenesProbe:"),
        ("replicas: 2", "replicas: two"),
        ("runAsUser:", "runAs:"),
    ],
)
def test_a_misspelt_field_is_found(rendered: dict[str, str], right: str, wrong: str, tmp_path: Path) -> None:
    assert right in rendered["base"]
    validated(rendered["base"].replace(right, wrong), tmp_path, ends=1)


def checked(found: list[dict[str, Any]], folder: Path) -> str:
    """What TypeScript says of these objects of operators, by the types that are published: nothing, if all is well."""
    names = sorted(TYPED)
    lines = [f'import type {{ I{name} }} from "{TYPED[name]}";' for name in names]
    lines += [f"export const o{number}: I{each['kind']} = {json.dumps(each)};" for number, each in enumerate(found)]
    (folder / "objects.mts").write_text("\n".join(lines), encoding="utf-8")
    (folder / "node_modules").symlink_to(node.PACKAGES, target_is_directory=True)
    words = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--types", ""]
    tsc = node.PACKAGES / "typescript" / "bin" / "tsc"
    argv = [str(node.node()), str(tsc), *words, "objects.mts"]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False).stdout


def of_operators(objects: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in objects.values() if each["kind"] in TYPED]


def test_objects_of_operators_are_as_their_types_want_them(
    objects: dict[str, dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    found = of_operators(objects["production"])
    assert {each["kind"] for each in found} == set(TYPED)
    assert checked(found, tmp_path) == ""


def test_a_misspelt_field_of_an_operator_s_object_is_found(
    objects: dict[str, dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    text = json.dumps(objects["production"]["ScaledObject worker"])
    said = checked([json.loads(text.replace("stabilizationWindowSeconds", "stabilisationWindowSeconds"))], tmp_path)
    assert "stabilisationWindowSeconds" in said


def test_workers_are_scaled_by_what_the_dispatchers_say(objects: dict[str, dict[str, dict[str, Any]]]) -> None:
    production = objects["production"]
    spec = production["ScaledObject worker"]["spec"]
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["query"] == "max(fleet_workers_wanted > 0)"
    assert (trigger["name"], spec["advanced"]["scalingModifiers"]["formula"]) == ("wanted", "wanted")
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert "replicas" not in production["Deployment worker"]["spec"]  # each `apply` would undo what KEDA did


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("role", ["dispatcher", "worker", "gateway"])
def test_pods_end_in_their_own_time_and_read_their_configuration_again(
    objects: dict[str, dict[str, dict[str, Any]]], overlay: str, role: str, tmp_path: Path
) -> None:
    found = objects[overlay]
    file = tmp_path / "fleet.toml"
    file.write_text(found["ConfigMap fleet-config"]["data"]["fleet.toml"], encoding="utf-8")
    config = load(file, {})
    pod = found[f"Deployment {role}"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > getattr(config, role).grace_s + 5
    (container,) = pod["containers"]
    assert {"name": "config", "mountPath": "/etc/fleet", "readOnly": True} in container["volumeMounts"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert "cpu" not in container["resources"]["limits"]
    assert list(config.lanes) == list(load(SHIPPED, {}).lanes)
    assert config.broker.declare == (overlay != "production")


def test_what_rabbitmq_imports_is_what_is_shipped() -> None:
    for file in (FOLDER / "production", checkers.ROOT / "deploy" / "rabbitmq"):
        definitions = json.loads((file / "definitions.json").read_text(encoding="utf-8"))
        queues = topology.queues(load(SHIPPED, {}).lanes)
        assert {each["name"] for each in definitions["queues"]} == {queue.name for queue in queues}


def test_policies_leave_ports_open_that_pods_have(objects: dict[str, dict[str, dict[str, Any]]]) -> None:
    base = objects["base"]
    closed = base["NetworkPolicy fleet-is-closed"]["spec"]
    for role in ("dispatcher", "worker", "gateway"):
        template = base[f"Deployment {role}"]["spec"]["template"]
        assert closed["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert "metrics" in {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert {port["port"] for port in closed["ingress"][0]["ports"]} == {"metrics"}
    selected = base["NetworkPolicy worker-to-exchanges"]["spec"]["podSelector"]["matchLabels"]
    assert selected == {"app.kubernetes.io/name": "worker"}


def test_the_rule_object_says_where_it_is_from() -> None:
    assert (FOLDER / "production" / "rules.yaml").read_text(encoding="utf-8").startswith(RULE_HEAD)
