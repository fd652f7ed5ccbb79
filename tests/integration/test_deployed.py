"""What Compose and Kubernetes say of the images, the code and each other is so. No engine runs here: it is read."""

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec import Struct

from schemas.config import Config, load
from schemas.gateway.callers import Callers
from schemas.runtime.http import Pages
from schemas.version import VERSION
from tests.support import checkers, dockerfile

DEPLOY = checkers.ROOT / "deploy"
OVERLAYS = ("base", "one-machine", "production")
PLACES = ("compose/config", "compose/demo", *OVERLAYS)
PAGES = {f"/{name}" for name in vars(Pages) if not name.startswith("_")}
SERVERS = {"FLEET_BROKER_URL", "FLEET_REDIS_URL"}


class Box(Struct, frozen=True):
    """A container of the fleet as Compose or Kubernetes starts it.

    Args:
        image: its image's name.
        words: what it starts in place of what the image says.
        runs_as: the user and the group, where they are not the image's.
        environment: its variables.
        files: the folders that are mounted, and the files in each.
        ports: those of its ports through which others reach it.
    """

    image: str
    words: list[str]
    runs_as: tuple[int, int] | None
    environment: dict[str, str]
    files: dict[str, dict[str, str]]
    ports: set[int]


class Place(Struct, frozen=True):
    """One way to run the fleet.

    Args:
        boxes: the fleet's containers by their roles.
        servers: the names by which others are reached, and their ports.
        passwords: the users of RabbitMQ that it makes, with their passwords; None where it makes none.
    """

    boxes: dict[str, Box]
    servers: dict[str, set[int]]
    passwords: dict[str, str] | None


def filled(text: str, **variables: str) -> str:
    """The compose file, with what the environment, or else the file itself, puts for each variable."""
    return re.sub(r"\$\{(\w+):-(.*?)\}", lambda found: variables.get(found[1], found[2]), text)


def decoded(value: str) -> str:
    """A value of a Kubernetes secret."""
    return base64.b64decode(value).decode()


def compose(folder: str) -> Place:
    """Compose, with its configuration in this folder."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    (document,) = checkers.documents(filled(text, FLEET_CONFIG=f"./{folder}"))
    services: dict[str, dict[str, Any]] = document["services"]
    boxes: dict[str, Box] = {}
    for role in dockerfile.ROLES:
        service = services[role]
        mounts = [volume.split(":") for volume in service["volumes"]]
        boxes[role] = Box(
            image=service["image"],
            words=[*service.get("entrypoint", ()), *service.get("command", ())],
            runs_as=service.get("user"),
            environment=service["environment"],
            files={
                target: {file.name: file.read_text(encoding="utf-8") for file in (DEPLOY / source).iterdir()}
                for source, target, _ in mounts
            },
            # Services of one project reach all ports that a container listens on.
            ports=dockerfile.exposed(role),
        )
        assert service["build"]["target"] == role
    servers = {
        name: {int(port.split(":")[-1]) for port in service.get("ports", ())} for name, service in services.items()
    }
    made = services["rabbitmq"]["environment"]
    return Place(boxes, servers, {made["RABBITMQ_DEFAULT_USER"]: made["RABBITMQ_DEFAULT_PASS"]})


def kubernetes(objects: list[dict[str, Any]]) -> Place:
    """An overlay, as kubectl renders it."""
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}

    def contents(volume: dict[str, Any]) -> dict[str, str]:
        if "configMap" in volume:
            return dict(found["ConfigMap", volume["configMap"]["name"]]["data"])
        secret = found.get(("Secret", volume["secret"]["secretName"]))
        return {} if secret is None else dict(secret["data"])

    boxes: dict[str, Box] = {}
    for role in dockerfile.ROLES:
        pod = found["Deployment", role]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        context = pod["securityContext"]
        assert context["fsGroup"] == context["runAsGroup"]  # else it could not read the files of secrets
        environment: dict[str, str] = {each["name"]: each["value"] for each in container.get("env", ())}
        for each in container["envFrom"]:
            secret = found.get(("Secret", each["secretRef"]["name"]))
            environment |= {} if secret is None else {name: decoded(value) for name, value in secret["data"].items()}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        boxes[role] = Box(
            image=container["image"],
            words=[*container.get("command", ()), *container.get("args", ())],
            runs_as=(context["runAsUser"], context["runAsGroup"]),
            environment=environment,
            files={mount["mountPath"]: contents(volumes[mount["name"]]) for mount in container["volumeMounts"]},
            ports={port["containerPort"] for port in container["ports"]},
        )
    servers = {
        name: {port["port"] for port in each["spec"]["ports"]}
        for (kind, name), each in found.items()
        if kind == "Service"
    }
    users = [each for (kind, name), each in found.items() if kind == "Secret" and name.startswith("rabbitmq-user")]
    made = {
        decoded(each["data"]["RABBITMQ_DEFAULT_USER"]): decoded(each["data"]["RABBITMQ_DEFAULT_PASS"]) for each in users
    }
    return Place(boxes, servers, made or None)


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[dict[str, Any]]]:
    """Return each overlay's objects, as kubectl renders them."""
    folder = DEPLOY / "kubernetes"
    return {name: checkers.documents(checkers.run("kubectl", "kustomize", folder / name)) for name in OVERLAYS}


@pytest.fixture(scope="module")
def places(rendered: dict[str, list[dict[str, Any]]]) -> dict[str, Place]:
    """Return all ways to run the fleet."""
    return {name: kubernetes(rendered[name]) if name in OVERLAYS else compose(name) for name in PLACES}


def configured(box: Box, role: str, folder: Path) -> Config:
    """The configuration that a container reads, by its own environment."""
    path = Path(dockerfile.option(role, "--config"))
    file = folder / path.name
    file.write_text(box.files[str(path.parent)][path.name], encoding="utf-8")
    return load(file, box.environment)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("role", dockerfile.ROLES)
def test_a_container_is_the_role_s_image_as_it_stands(places: dict[str, Place], name: str, role: str) -> None:
    box = places[name].boxes[role]
    assert box.image == f"ccxt-fleet-{role}:{VERSION}"
    assert box.words == []
    assert box.runs_as in {None, dockerfile.user()}


@pytest.mark.parametrize("role", [*dockerfile.ROLES, "simulator"])
def test_an_image_starts_a_module_by_options_that_it_has(role: str) -> None:
    python, safe, runs, module, *words = dockerfile.words(role)
    assert (python, safe, runs) == ("python", "-P", "-m")
    top, _, rest = module.partition(".")
    assert top == "ccxt_fleet"
    # The wheel has `schemas` as `ccxt_fleet` itself.
    here = rest if (checkers.ROOT / rest.partition(".")[0]).is_dir() else f"schemas.{rest}"
    argv = [sys.executable, "-m", here, "--help"]
    known = subprocess.run(argv, cwd=checkers.ROOT, capture_output=True, text=True, check=True).stdout
    options = [word for word in words if word.startswith("--")]
    assert options
    assert all(re.search(rf"{option}\b", known) for option in options), known


@pytest.mark.parametrize("role", dockerfile.ROLES)
def test_an_image_s_check_asks_the_port_that_it_opens(role: str) -> None:
    asked = urlsplit(dockerfile.asked(role))
    assert str(asked.port) == dockerfile.option(role, "--metrics-port")
    assert asked.port in dockerfile.exposed(role)
    assert asked.path in PAGES
    assert dockerfile.option(role, "--metrics-address") == "0.0.0.0"


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("role", dockerfile.ROLES)
def test_a_container_finds_its_configuration_and_its_servers(
    places: dict[str, Place], name: str, role: str, tmp_path: Path
) -> None:
    place = places[name]
    box = place.boxes[role]
    config = configured(box, role, tmp_path)
    if place.passwords is None:  # its servers are the user's own, and so are the secrets
        assert box.environment == {}
        return
    tokens = {source.env for source in config.gateway.tokens.values() if source.env}
    assert set(box.environment) == SERVERS | (tokens if role == "gateway" else set())
    (url,) = config.broker.urls
    broker, redis = urlsplit(url), urlsplit(config.redis.url)
    assert place.passwords == {broker.username: broker.password}
    for server in (broker, redis):
        assert server.port in place.servers[str(server.hostname)]


@pytest.mark.parametrize("name", PLACES)
def test_the_gateway_listens_where_it_is_reached_and_finds_its_tokens(
    places: dict[str, Place], name: str, tmp_path: Path
) -> None:
    box = places[name].boxes["gateway"]
    config = configured(box, "gateway", tmp_path)
    assert config.gateway.tokens
    assert not config.gateway.is_alone
    assert config.gateway.port in box.ports & dockerfile.exposed("gateway")
    assert not config.gateway.signed  # its image has no ccxt
    files = [Path(source.file) for source in config.gateway.tokens.values() if source.file]
    for file in files:
        assert str(file.parent) in box.files
        if places[name].passwords is not None:
            assert box.files[str(file.parent)][file.name]
    if not files:
        Callers(config.broker, config.gateway, box.environment)


def test_programs_reach_the_gateway_through_compose() -> None:
    (document,) = checkers.documents((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    port = load(DEPLOY / "compose" / "config" / "fleet.toml", {}).gateway.port
    assert document["services"]["gateway"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_compose_s_prometheus_and_grafana_find_what_they_ask() -> None:
    (scraped,) = checkers.documents((DEPLOY / "compose" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in scraped["scrape_configs"]}
    for role in dockerfile.ROLES:
        (found,) = jobs.pop(f"ccxt-fleet-{role}")["dns_sd_configs"]
        assert (found["names"], str(found["port"])) == ([role], dockerfile.option(role, "--metrics-port"))
    assert list(jobs) == ["rabbitmq"]
    (document,) = checkers.documents((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    services = document["services"]
    mounted = dict(volume.split(":")[:2] for volume in services["prometheus"]["volumes"])
    assert mounted["./compose/prometheus.yml"] == "/etc/prometheus/prometheus.yml"  # where its image looks
    assert mounted["./prometheus/rules.yml"] == f"/etc/prometheus/{scraped['rule_files'][0]}"
    provisioning = DEPLOY / "compose" / "grafana"
    (sources,) = checkers.documents((provisioning / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    url = urlsplit(str(sources["datasources"][0]["url"]))
    assert f"127.0.0.1:{url.port}:{url.port}" in services[str(url.hostname)]["ports"]
    (boards,) = checkers.documents((provisioning / "dashboards" / "fleet.yml").read_text(encoding="utf-8"))
    mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounted["./grafana"] == boards["providers"][0]["options"]["path"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_the_ports_that_are_asked(rendered: dict[str, list[dict[str, Any]]], overlay: str) -> None:
    found = {f"{each['kind']} {each['metadata']['name']}": each for each in rendered[overlay]}
    for role in dockerfile.ROLES:
        (container,) = found[f"Deployment {role}"]["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert str(ports["metrics"]) == dockerfile.option(role, "--metrics-port")
        assert set(ports.values()) == dockerfile.exposed(role)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == "metrics"
            assert asked["path"] in PAGES
    pods = [each["spec"]["template"] for each in rendered[overlay] if each["kind"] in {"Deployment", "StatefulSet"}]
    services = [each for each in rendered[overlay] if each["kind"] == "Service"]
    assert "gateway" in {each["metadata"]["name"] for each in services}
    for service in services:
        wanted = service["spec"]["selector"].items()
        (pod,) = (each for each in pods if wanted <= each["metadata"]["labels"].items())
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]] if "targetPort" in port else port["port"] in ports.values()


def test_secrets_have_the_names_that_the_docs_say(rendered: dict[str, list[dict[str, Any]]]) -> None:
    docs = (checkers.ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    for each in rendered["base"]:
        if each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            names = [source["secretRef"]["name"] for source in pod["containers"][0]["envFrom"]]
            names += [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
            assert all(f"`{name}`" in docs for name in names), names
    assert all(f"`{name}`" in docs for name in SERVERS)


def reaches(objects: list[dict[str, Any]], source: dict[str, str], target: dict[str, str], port: int | str) -> bool:
    """Whether the network policies let pods with some labels open a connection to a port of others."""

    def selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
        rules = selector.get("matchExpressions", ())
        assert all(rule["operator"] == "In" for rule in rules)
        return selector.get("matchLabels", {}).items() <= labels.items() and all(
            labels.get(rule["key"]) in rule["values"] for rule in rules
        )

    def lets(way: str, own: dict[str, str], other: dict[str, str]) -> bool:
        specs = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
        specs = [spec for spec in specs if way in spec["policyTypes"] and selected(spec["podSelector"], own)]
        peers = {"Ingress": "from", "Egress": "to"}[way]
        return not specs or any(
            any(selected(peer.get("podSelector", {"matchLabels": {"": ""}}), other) for peer in rule[peers])
            and any(each["port"] == port for each in rule.get("ports", [{"port": port}]))
            for spec in specs
            for rule in spec.get(way.lower(), ())
        )

    return lets("Egress", source, target) and lets("Ingress", target, source)


def test_policies_let_the_fleet_reach_its_servers_and_nothing_of_its_own(
    rendered: dict[str, list[dict[str, Any]]],
) -> None:
    objects = rendered["one-machine"]
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in objects
        if each["kind"] in {"Deployment", "StatefulSet"}
    }
    for role in dockerfile.ROLES:
        assert reaches(objects, pods[role], pods["rabbitmq"], 5672)
        assert reaches(objects, pods[role], pods["redis"], 6379)
        assert not reaches(objects, pods[role], pods["redis"], 22)
        for other in dockerfile.ROLES:
            assert not reaches(objects, pods[role], pods[other], "metrics")
    assert not reaches(objects, pods["rabbitmq"], pods["gateway"], "http")
