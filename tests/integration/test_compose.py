"""`deploy/compose.yaml`: right by the published schema, and what it names is there."""

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deploy.local import simulated
from deploy.processes import free_port
from deploy.simulator.__main__ import USUAL
from deploy.simulator.process import Simulator
from schemas.config import load
from tests.support import checkers, dockerfile
from tests.support.prometheus import RULES, promtool

FOLDER = checkers.ROOT / "deploy"
FILE = FOLDER / "compose.yaml"
TEXT = FILE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """Return the services."""
    (document,) = checkers.documents(TEXT)
    found: dict[str, dict[str, Any]] = document["services"]
    return found


def checked(text: str, folder: Path, *, ends: int = 0) -> str:
    file = folder / "compose.yaml"
    file.write_text(text, encoding="utf-8")
    return checkers.run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file, ends=ends)


def test_it_is_as_the_schema_wants_it(tmp_path: Path) -> None:
    checked(TEXT, tmp_path)


def test_a_misspelt_field_is_found(tmp_path: Path) -> None:
    assert "stop_grace_perod" in checked(
        TEXT.replace("stop_grace_period: 60s", "stop_grace_perod: 60s"), tmp_path, ends=1
    )


def test_what_it_builds_and_mounts_is_there(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if build := service.get("build"):
            assert (FOLDER / build["context"] / build["dockerfile"]).is_file()
            assert build["target"] in dockerfile.STAGES
            assert service["read_only"], name
        for volume in service.get("volumes", ()):
            source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).partition(":")[0]
            assert not source.startswith(".") or (FOLDER / source).exists(), volume
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port


def test_services_wait_for_their_servers_and_end_in_their_own_time(services: dict[str, dict[str, Any]]) -> None:
    config = load(FOLDER / "compose" / "config" / "fleet.toml", {})
    assert list(config.lanes) == list(load(FOLDER / "fleet.toml", {}).lanes)
    for name in dockerfile.ROLES:
        service = services[name]
        assert {server: wants["condition"] for server, wants in service["depends_on"].items()} == {
            "rabbitmq": "service_healthy",
            "redis": "service_healthy",
        }
        assert int(service["stop_grace_period"].removesuffix("s")) > getattr(config, name).grace_s + 5
    assert all(services[name]["deploy"]["replicas"] == 2 for name in ("dispatcher", "worker"))
    assert all("healthcheck" in services[name] for name in ("rabbitmq", "redis", "prometheus"))


def test_the_demo_s_lanes_lead_to_its_simulator(services: dict[str, dict[str, Any]]) -> None:
    assert services["simulator"]["profiles"] == ["demo"]
    file = FOLDER / "compose" / "demo" / "fleet.toml"
    urls = {name: f"http://simulator:{9200 + number}" for number, name in enumerate(USUAL, 1)}
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    assert found.pop("gateway") == {"address": "0.0.0.0", "tokens": {"local": {"env": "FLEET_GATEWAY_TOKEN"}}}
    assert "FLEET_GATEWAY_TOKEN" in services["gateway"]["environment"]
    assert found == simulated(urls)
    assert len(load(file, {}).lanes) == len(USUAL)


async def test_the_simulator_s_ports_follow_one_another() -> None:
    port = free_port()
    async with Simulator(exchanges=["okx"], arguments=("--port", str(port))) as simulator:
        assert simulator.control == f"http://127.0.0.1:{port}"
        assert simulator.urls == {"okx": f"http://127.0.0.1:{port + 1}"}


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    config = shutil.copy(FOLDER / "compose" / "prometheus.yml", tmp_path)
    shutil.copy(RULES, tmp_path)
    promtool("check", "config", config)
    jobs = re.findall(r"job_name: (\S+)", Path(config).read_text(encoding="utf-8"))
    shipped = re.findall(r"job_name: (\S+)", RULES.with_name("prometheus.yml").read_text(encoding="utf-8"))
    assert jobs == shipped
