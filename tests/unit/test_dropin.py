"""The drop-in's modules and classes are ccxt's, and nothing that is signed is given to the fleet."""

import copy
import importlib
import pickle
import re
from datetime import timedelta
from typing import Any

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import ccxt.async_support as ccxt_async  # pyright: ignore[reportMissingTypeStubs]
import ccxt.pro as ccxt_pro  # pyright: ignore[reportMissingTypeStubs]
import pytest

import workers.dropin.ccxt as ours
import workers.dropin.ccxt_async as ours_async
import workers.dropin.ccxt_pro as ours_pro
from schemas.errors import ConfigError
from workers.dropin import reads, settings
from workers.dropin.classes import OURS
from workers.exchange.public_urls import endpoints

MODULES = [(ccxt, ours), (ccxt_async, ours_async), (ccxt_pro, ours_pro)]
SECRET = "canary"
KEYS = {
    "apiKey": SECRET,
    "secret": f"{SECRET}0000",
    "password": SECRET,
    "uid": SECRET,
    "login": SECRET,
    "token": SECRET,
    "accountId": SECRET,
    "walletAddress": "0x" + "ab" * 20,
    "privateKey": "0x" + "cd" * 32,
}


@pytest.mark.parametrize(("theirs", "mine"), MODULES, ids=lambda module: module.__name__)
def test_a_module_has_all_that_ccxt_s_has(theirs: Any, mine: Any) -> None:
    names = {name for name in dir(theirs) if not name.startswith("__")} | {"__version__"}
    for name in names - set(OURS):
        value: Any = getattr(mine, name)
        other: Any = getattr(theirs, name, None)
        if name == "Exchange" or name in theirs.exchanges:
            assert issubclass(value, other)
            assert issubclass(value, mine.Exchange)
            assert (value.__name__, value.__doc__) == (name, other.__doc__)
        else:
            assert value is other
    starred: dict[str, Any] = {}
    exec(f"from {mine.__name__} import *", starred)
    assert starred["Exchange"] is mine.Exchange


@pytest.mark.parametrize(("theirs", "mine"), MODULES, ids=lambda module: module.__name__)
def test_classes_are_related_as_ccxt_s_are(theirs: Any, mine: Any) -> None:
    for name in theirs.exchanges:
        for other in theirs.exchanges:
            related = issubclass(getattr(theirs, name), getattr(theirs, other))
            assert issubclass(getattr(mine, name), getattr(mine, other)) is related


def test_modules_lead_to_each_other() -> None:
    assert ours.async_support is ours_async
    assert ours.pro is ours_pro
    assert issubclass(ours_pro.binance, ours_async.binance)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ours.nonsense


def test_what_ccxt_permits_is_permitted() -> None:
    exchange = ours.kraken({"timeout": 5000, "options": {"a": 1}})
    for again in (copy.deepcopy(exchange), pickle.loads(pickle.dumps(exchange))):
        assert type(again) is ours.kraken
        assert (again.timeout, again.options["a"]) == (5000, 1)
    assert pickle.loads(pickle.dumps(ours_async.okx)) is ours_async.okx

    class Mine(ours.binance):  # type: ignore[misc]
        def describe(self) -> Any:
            return self.deep_extend(super().describe(), {"id": "mine", "name": "My own"})

    assert Mine().id == "mine"
    assert reads.name_of(Mine()) == "binance"
    assert reads.is_public(Mine(), "klines", "public", "GET")


def test_the_fleet_s_name_of_an_exchange() -> None:
    for made in (ours.binance(), ours_async.binance(), ours_pro.binance(), ccxt.binance()):
        assert reads.name_of(made) == "binance"
    assert reads.name_of(ours.Exchange({"id": "new"})) == "new"
    assert not reads.is_public(ours.Exchange({"id": "new"}), "time", "public", "GET")


def test_which_calls_are_public() -> None:
    public = {
        (ours.binance, "public", "GET", "klines"),
        (ours.binance, "sapi", "GET", "system/status"),
        (ours.okx, "public", "GET", "market/ticker"),
        (ours.hyperliquid, "public", "POST", "info"),
    }
    private = {
        (ours.binance, "private", "GET", "account"),
        (ours.binance, "private", "POST", "order"),
        (ours.binance, "public", "GET", "historicalTrades"),  # wants a key
        (ours.binance, "public", "POST", "userDataStream"),
        (ours.okx, "private", "GET", "account/balance"),
        (ours.hyperliquid, "private", "POST", "exchange"),
        (ours.kraken, "public", "GET", "nothing of the kind"),
    }
    for kind, api, method, path in public | private:
        wanted = (kind, api, method, path) in public
        assert reads.is_public(kind(KEYS), path, api, method) is wanted, (kind, api, method, path)


@pytest.mark.parametrize("name", ccxt.exchanges)
def test_no_public_read_carries_a_key_or_a_signature(name: str) -> None:
    exchange = getattr(ours, name)({"enableRateLimit": False, **KEYS})
    for endpoint in endpoints(exchange):
        if reads.is_public(exchange, endpoint.path, endpoint.api, endpoint.method):
            taken = dict.fromkeys(re.findall(r"\{([\w-]+)\}", endpoint.path), "x")
            made = exchange.sign(endpoint.path, endpoint.api, endpoint.method, taken)
            sent = f"{made['url']} {made.get('body')}".lower()
            assert not any(word in sent for word in (SECRET, "ab" * 20, "signature")), endpoint.key


def test_what_can_t_be_said_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_DEADLINE_S", raising=False)
    assert settings.of(ours.okx()) == settings.Settings()
    assert settings.of(ours.okx({"fleet": {"deadline_s": 5, "exchanges": ["okx.eu1"]}})).exchanges == ("okx.eu1",)
    with pytest.raises(ConfigError, match=r"okx's 'fleet'.*deadline_s.*known are FLEET_DEADLINE_S, .*, exchanges"):
        settings.of(ours.okx({"fleet": {"deadline_s": "soon"}}))
    with pytest.raises(ConfigError, match=r"okx's 'fleet'.*lane"):
        settings.of(ours.okx({"fleet": {"lane": "okx"}}))
    monkeypatch.setenv("FLEET_DEADLINE_S", "90.5")
    monkeypatch.setenv("FLEET_PRIORITY", "bulk")
    said = settings.of(ours.okx())
    assert (said.deadline_s, said.priority) == (90.5, "bulk")
    assert settings.how(said, ours.okx({"timeout": 120_000})).get("deadline") == timedelta(seconds=120)
    assert settings.how(said, ours.okx()).get("max_age") is None
    of_markets = settings.Settings(max_age_s=1, markets_max_age_s=300)
    ages = [settings.how(of_markets, ours.okx(), markets=markets).get("max_age") for markets in (False, True)]
    assert ages == [timedelta(seconds=1), timedelta(seconds=300)]
    monkeypatch.setenv("FLEET_PRIORITY", "soon")
    with pytest.raises(ConfigError, match="in the environment"):
        settings.of(ours.okx())


def test_a_testnet_s_lanes_are_asked_for_a_testnet() -> None:
    exchange = ours.binance()
    exchange.set_sandbox_mode(True)
    assert settings.lanes(settings.Settings(), exchange, "binance") == ("binance-sandbox",)


def test_keys_that_are_of_no_use_make_ccxt_take_the_public_way() -> None:
    assert ours.coinbase(KEYS).check_required_credentials(False) is False
    assert ours.coinbase(KEYS).check_required_credentials() is True
    assert ours.coinbase({**KEYS, "fleet": {"private": "direct"}}).check_required_credentials(False) is True
    with pytest.raises(ccxt.AuthenticationError, match='coinbase requires "apiKey" credential'):
        ours.coinbase().check_required_credentials()


def test_the_hook_puts_the_fleet_below_all_exchanges() -> None:
    hook = importlib.import_module("workers.dropin.hook")
    for name in ("ccxt.base.exchange", "ccxt.async_support.base.exchange"):
        module = importlib.import_module(name)
        theirs = vars(module)["Exchange"]
        stands_for = type(module)(name)
        vars(stands_for).update(vars(module))
        hook.lead(stands_for)
        led = vars(stands_for)["Exchange"]
        assert issubclass(led, theirs)
        assert "FleetCalls" in {each.__name__ for each in led.__mro__}
        assert vars(module)["Exchange"] is theirs
