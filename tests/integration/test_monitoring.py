"""A real Prometheus scrapes a fleet at work: every rule can be evaluated, and every rule and panel finds data.

Also held here: rules, panels, runbook and docs name the same metrics and alerts.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy import dashboard
from deploy.local import GatewayService
from deploy.processes import free_port
from schemas.runtime.results import now_ms
from tests.support import gateways
from tests.support.fleet import Stand, wait_until
from tests.support.prometheus import RULES, Prometheus

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))
TOLD = ("Meaning", "Impact", "Diagnosis", "What to do")
BTC = {"symbol": "BTC/USDT"}


@pytest.fixture
async def queues_port(stand: Stand) -> AsyncIterator[int]:
    """Yield the port at which RabbitMQ tells the length of its queues meanwhile."""
    port, plugins = free_port(), stand.rabbitmq.folder.resolve() / "plugins"
    ensure = f'rabbit_plugins:ensure("{plugins}").'
    where = f'[{{port, {port}}}, {{ip, "127.0.0.1"}}]'
    # Without `persistent` a plugin that is loaded after it has its own default again (Erlang 27).
    listen = f"application:set_env(rabbitmq_prometheus, tcp_config, {where}, [{{persistent, true}}])"
    plugins.write_text("[rabbitmq_prometheus].\n", encoding="utf-8")
    await stand.rabbitmq.eval(f"{listen}, {ensure}")
    yield port
    plugins.write_text("[].\n", encoding="utf-8")
    await stand.rabbitmq.eval(ensure)


@pytest.fixture
async def gateway(stand: Stand) -> AsyncIterator[GatewayService]:
    """Yield a gateway of the session's fleet."""
    async with gateways.beside(stand) as running:
        yield running


@pytest.fixture
async def prometheus(
    stand: Stand, gateway: GatewayService, queues_port: int, tmp_path: Path
) -> AsyncIterator[Prometheus]:
    """Yield a Prometheus that scrapes the session's fleet by the shipped configuration."""
    targets = {
        "ccxt-fleet-dispatcher": [each.metrics_port for each in stand.fleet.dispatchers],
        "ccxt-fleet-worker": [each.metrics_port for each in stand.fleet.workers],
        "ccxt-fleet-gateway": [gateway.metrics_port],
        "rabbitmq": [queues_port],
    }
    async with Prometheus(tmp_path, targets) as prometheus:
        yield prometheus


async def everything_happens(stand: Stand) -> None:
    """Requests that are answered, fail over, find no budget, can't be read; a pause, a lane set aside, a lost Redis."""
    client = stand.client
    await client.send(b"no request")
    await client.ask("fetch_ticker", BTC)
    refusal = {"status": 429, "headers": {"Retry-After": "60"}, "body": "{}"}
    await stand.simulator.fault("coinbase", said={"ticker": refusal})
    await client.ask("fetch_ticker", BTC, exchanges=["coinbase", "binance"], strategy="failover")
    await stand.simulator.fault("okx", down="refused")
    for _ in range(4):
        await client.ask("fetch_ticker", BTC, exchanges=["okx", "binance"], strategy="failover")
    await stand.simulator.clear("okx")
    await stand.simulator.clear("coinbase")
    # More than HTX allows within their deadline.
    hurried = {"method": "fetch_ticker", "args": BTC, "exchanges": ["htx"], "deadline_ms": now_ms() + 3000}
    for each in [await client.send(hurried) for _ in range(400)]:
        await client.answer(each)
    stand.redis.freeze()
    await wait_until(lambda: redis_is_missed(stand), "Redis is missed")
    stand.redis.thaw()


async def programs_come(gateway: GatewayService) -> None:
    """One that asks for a ticker, and one for nothing that there is."""
    async with aiohttp.ClientSession() as session:
        for path in ("v1/fetch_ticker?symbol=BTC/USDT&exchanges=binance", "nothing"):
            async with session.get(f"{gateway.url}/{path}") as answer:
                await answer.read()


async def redis_is_missed(stand: Stand) -> bool:
    """Whether every process has counted an answer that Redis owes it."""
    seen = [await each.metrics() for each in stand.services]
    return all(any(name == "fleet_redis_errors_total" for name, *_ in each) for each in seen)


def without_threshold(expression: str) -> str:
    """What an alert compares, or looks for in vain."""
    compared = re.fullmatch(r"(.*) (?:[<>]|==) [\d.]+", expression, re.DOTALL)
    if compared:
        return compared[1]
    missed = re.fullmatch(r"absent\((.*)\)", expression)
    assert missed, f"an alert is a comparison with a number, or absent(): {expression}"
    return missed[1]


def as_grafana_asks(query: str) -> str:
    return query.replace("$__rate_interval", "20s").replace("$lane", ".*")


async def test_every_rule_and_every_panel_finds_data(
    stand: Stand, gateway: GatewayService, prometheus: Prometheus
) -> None:
    # Counters are there from the start, so that their first rise is seen.
    await wait_until(lambda: prometheus.query("fleet:workers:count == 2"), "all workers are scraped", every_s=0.3)
    assert await prometheus.query('fleet_attempts_total{code="internal"}')
    await programs_come(gateway)
    await everything_happens(stand)
    rules: list[dict[str, Any]] = []

    async def evaluated() -> bool:
        rules[:] = [rule for group in (await prometheus.ask("rules"))["groups"] for rule in group["rules"]]
        return all(rule["health"] != "unknown" for rule in rules)

    await wait_until(evaluated, "all rules were evaluated", every_s=0.3)
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    assert sorted(rule["name"] for rule in rules if rule["type"] == "alerting") == sorted(ALERTS)
    asked = {rule["name"]: rule["name"] for rule in rules if rule["type"] == "recording"}
    asked |= {rule["name"]: without_threshold(rule["query"]) for rule in rules if rule["type"] == "alerting"}
    asked |= {query: as_grafana_asks(query) for query in dashboard.queries()}

    async def empty() -> list[str]:
        found = await asyncio.gather(*(prometheus.query(query) for query in asked.values()))
        return [name for name, samples in zip(asked, found, strict=True) if not samples]

    async def nothing_is_empty() -> bool:
        return not await empty()

    try:
        await wait_until(nothing_is_empty, "every rule and panel finds data", every_s=0.5)
    except AssertionError as error:
        raise AssertionError(f"these find none: {await empty()}") from error


def test_dashboard_and_rule_object_are_the_generated_ones() -> None:
    assert json.loads(dashboard.DASHBOARD.read_text(encoding="utf-8")) == dashboard.dashboard()
    assert dashboard.RULE_OBJECT.read_text(encoding="utf-8") == dashboard.rule_object()


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in dashboard.dashboard()["panels"]]
    cells = [(at["x"] + x, at["y"] + y) for at in places for x in range(at["w"]) for y in range(at["h"])]
    assert len(cells) == len(set(cells))
    assert all(at["x"] + at["w"] <= 24 for at in places)


def test_metrics_in_rules_panels_and_runbook_exist() -> None:
    known = set(re.findall(r"^\| `(fleet_\w+)`", OPERATIONS, re.MULTILINE))
    text = RULES.read_text(encoding="utf-8")
    recorded = re.findall(r"- record: (\S+)", text)
    queries = [*re.findall(r"^ +expr: (?:\|\n)?(.*(?:\n {10,}.*)*)", text, re.MULTILINE), *dashboard.queries()]
    assert len(queries) > len(ALERTS) + len(recorded)
    for query in [*queries, RUNBOOK]:
        for name in re.findall(r"[a-z_]+:[\w:]+", query.replace("docs:", "")):
            assert name in recorded, name
        for name in re.findall(r"(?<![\w:])fleet_\w+(?!:)", query):
            assert {name, re.sub("_(bucket|sum|count)$", "", name)} & known, name


@pytest.mark.parametrize("alert", ALERTS)
def test_the_runbook_has_a_section_for_every_alert(alert: str) -> None:
    found = re.search(rf"^## {alert}\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert found, alert
    assert re.findall(r"^\*\*(.*?)\.\*\*", found[1], re.MULTILINE) == list(TOLD)


def test_the_runbook_has_no_other_section() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == ALERTS
