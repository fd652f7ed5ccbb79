"""All mistakes of a configuration are told at once, each by its key, and a right one has none."""

from pathlib import Path

import pytest

from schemas.operator import output
from schemas.operator.mistakes import mistakes
from tests.support.commands import ROOT, here
from workers.check import check

# Each is a mistake of its own; all of them stand in one file.
TOML = """
typo = 1
[broker]
urls = ["http://x/"]
[redis]
url = "redis://u:p@h:notaport/"
[worker]
inflight = 3
max_wait_s = -1
[dispatcher]
strategy = "fast"
methods = ["create_order"]
trial_after_s = 9
[lanes.okx]
weigth = 2
weight = 0
[lanes."okx.eu"]
local_addr = "nowhere"
account = "other"
[lanes.Binance]
[lanes.kraken]
ccxt = { options = { nothing = 1 } }
[lanes.nosuch]
[groups.best]
exchanges = ["okx", "ftx"]
[groups.none]
[limits.okx.buckets.foo]
amount = 3
window_s = 1
kind = "rolling"
source = "x"
[limits.okx.endpoints]
"public GET no/such" = [{ bucket = "of_20" }]
[limits.bybit.buckets.ip]
amount = 3
[accounts.main]
api_key = "secret"
"""
KEYS = {
    "fleet.toml", "broker.urls[0]", "redis.url", "worker", "worker.max_wait_s", "dispatcher.strategy",
    "dispatcher.methods", "dispatcher.trial_after_s", "lanes.okx", "lanes.okx.weight", "lanes.okx.eu.local_addr",
    "lanes.okx.eu.account", "lanes.Binance", "lanes.kraken.ccxt.options.nothing", "lanes.nosuch.exchange",
    "groups.best.exchanges", "groups.none", "limits.okx.buckets.foo", 'limits.okx.endpoints."public GET no/such"',
    "limits.bybit", "accounts.main.api_key", "accounts.main",
}  # fmt: skip


def test_all_mistakes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(TOML, encoding="utf-8")
    found = mistakes(path, check)
    assert {key for key, _ in found} == KEYS
    assert len(found) == len(KEYS)
    assert all(what for _, what in found)
    assert not any("secret" in what or "u:p" in what for _, what in found if "stand in this file" not in what)
    done = here("config", "check", str(path))
    assert done.code == output.WRONG
    assert f"{len(KEYS)} wrong" in done.err


@pytest.mark.parametrize("path", [ROOT / "deploy" / "fleet.toml"], ids=str)
def test_a_right_one_has_none(path: Path) -> None:
    assert mistakes(path, check) == []
    done = here("config", "check", str(path), "--json")
    assert done.code == output.OK
    assert done.json["ok"] is True


@pytest.mark.parametrize("body", [b"lanes = ", b"\xff", b"[" * 5000, b""])
def test_what_is_no_configuration(body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_bytes(body)
    assert len(mistakes(path, check)) == 1
    assert here("config", "check", str(path)).code == output.WRONG


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "can't be read" in mistakes(tmp_path / "none.toml", None)[0][1]


def test_the_environment_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_BROKER_URL", "http://x/")
    monkeypatch.setenv("FLEET_REDIS_URL", "amqp://x/")
    found = mistakes(ROOT / "deploy" / "fleet.toml", check)
    assert [key for key, _ in found] == ["FLEET_BROKER_URL in the environment", "FLEET_REDIS_URL in the environment"]


def nothing(_module: str) -> None:
    """There is no such module."""


def test_without_the_services_packages_it_says_what_it_could_not_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.operator.configs._workers", nothing)
    done = here("config", "check", str(ROOT / "deploy" / "fleet.toml"))
    assert done.code == output.OK
    assert "was not checked" in done.out
    assert "ccxt-fleet[services]" in done.out
    assert here("limits", "show", "okx").code == output.USAGE


def test_limits_of_exchanges_that_are_no_lane() -> None:
    done = here("limits", "show", "okx", "bitso", "--json")
    okx, bitso = done.json
    assert (okx["lane"], okx["guess"], bitso["guess"]) == ("okx", False, True)
    assert {"bucket", "amount", "window_s", "kind", "per", "certain", "note"} == okx["buckets"][0].keys()
    assert "'nosuch' is no exchange of ccxt" in here("limits", "show", "nosuch").err
    assert here("limits", "show", "--config", str(ROOT / "deploy" / "fleet.toml")).code == output.OK
