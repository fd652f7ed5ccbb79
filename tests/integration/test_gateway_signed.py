"""Signed calls through the gateway: charged as a program's own, sent once from the lane's address, shown nowhere."""

import asyncio
import contextlib
import importlib.util
import re
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import ccxt as blocking  # pyright: ignore[reportMissingTypeStubs]
import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
from yarl import URL

from deploy.local import GatewayService, Services, simulated
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.config import load
from schemas.errors import ConfigError
from schemas.gateway import service
from tests.integration.test_gateway import SHIPPED, printed
from tests.support.canaries import held_by_redis
from tests.support.fleet import QUICK, Stand, wait_until
from tests.support.reads import SYMBOL
from tests.support.signed import ANNA, BORIS, keys, send, signed_headers, signing
from workers.direct import charged

# ccxt's private endpoints at the simulator, as it calls them.
ORDERS = {"binance": "/api/v3/order", "okx": "/api/v5/trade/batch-orders", "kraken": "/0/private/BalanceEx"}


@pytest.fixture
async def gateway(stand: Stand, tmp_path: Path) -> AsyncGenerator[GatewayService]:
    """Yield a gateway of the session's fleet that takes signed calls."""
    async with signing(stand, tmp_path) as running:
        yield running


async def came(stand: Stand, exchange: str) -> int:
    """How often the exchange's private endpoint was called."""
    endpoints = (await stand.simulator.counters())["exchanges"][exchange]["endpoints"]
    return int(endpoints.get(ORDERS[exchange], 0))


@contextlib.asynccontextmanager
async def program(
    stand: Stand, gateway: GatewayService, exchange: str, account: Any = ANNA, **more: Any
) -> AsyncGenerator[Any]:
    """An instance of ccxt's own class, with what ``gateway config`` prints."""
    settings = (await printed(stand, exchange, gateway))["ccxt"]
    made: Any = getattr(ccxt, exchange)({**settings, **SHIPPED[exchange].get("ccxt", {}), **keys(account), **more})
    made.timeout_on_exit = 0
    made.has["fetchCurrencies"] = made.options["fetchMargins"] = False  # with keys ccxt asks, the simulator has none
    try:
        yield made
    finally:
        await made.close()


async def test_ccxt_s_own_classes_trade_through_it(stand: Stand, gateway: GatewayService) -> None:
    for exchange in ("binance", "okx"):
        before = await came(stand, exchange)
        async with program(stand, gateway, exchange) as made:
            order = await made.create_order(SYMBOL, "limit", "buy", 0.001, 10_000)
            assert order["id"]
            assert await came(stand, exchange) == before + 1
            balance = await made.fetch_balance()
            assert (balance["BTC"]["total"], balance["USDT"]["total"]) == (float(ANNA.btc), float(ANNA.usdt))
            assert await made.fetch_open_orders(SYMBOL) == []
    async with program(stand, gateway, "binance") as made:  # a DELETE
        assert (await made.cancel_order("1", SYMBOL))["symbol"] == SYMBOL
    before = await came(stand, "kraken")
    async with program(stand, gateway, "kraken", BORIS) as made:  # POSTs, with the nonce in the body
        balance = await made.fetch_balance()
        assert balance["BTC"]["total"] == float(BORIS.btc)
        assert await made.fetch_open_orders() == []
        assert (await made.fetch_ticker(SYMBOL))["symbol"] == SYMBOL  # by the fleet
    assert await came(stand, "kraken") == before + 1
    seen = await gateway.metrics()
    assert seen["fleet_gateway_signed_total", "anyone", "answered", "binance"] >= 4
    assert seen["fleet_gateway_signed_total", "anyone", "answered", "kraken"] == 2
    assert await stand.violations() == 0


async def test_a_blocking_class_too(stand: Stand, gateway: GatewayService) -> None:
    settings = (await printed(stand, "okx", gateway))["ccxt"]
    kind: Any = blocking.okx
    made = kind({**settings, **SHIPPED["okx"].get("ccxt", {}), **keys()})
    made.has["fetchCurrencies"] = False  # with keys ccxt asks, the simulator has none
    assert (await asyncio.to_thread(made.fetch_balance))["BTC"]["total"] == float(ANNA.btc)


async def test_an_error_of_the_exchange_comes_to_the_letter(stand: Stand, gateway: GatewayService) -> None:
    async with program(stand, gateway, "okx", ANNA._replace(passphrase="wrong")) as made:
        with pytest.raises(ccxt.AuthenticationError, match="OK-ACCESS-PASSPHRASE incorrect"):
            await made.fetch_balance()
    async with program(stand, gateway, "kraken", ANNA._replace(key="unknown")) as made:
        with pytest.raises(ccxt.AuthenticationError, match="EAPI:Invalid key"):
            await made.fetch_balance()


async def test_rabbitmq_has_no_part_in_it(stand: Stand, gateway: GatewayService) -> None:
    """An order is answered while RabbitMQ is away."""
    call = await signed_headers(stand, "okx", "account/balance", ["private"], "GET", {})
    stand.rabbitmq.kill()
    try:
        status, headers, text = await send(gateway, call, "okx")
        assert (status, headers["X-Fleet-Lane"]) == (200, "okx"), text
        assert ANNA.usdt in text
    finally:
        await stand.rabbitmq.start()


async def test_a_refusal_pauses_the_fleet_and_what_the_fleet_met_pauses_signed_calls(
    stand: Stand, gateway: GatewayService
) -> None:
    # Of this endpoint alone: a probe of the fleet must not meet it first.
    lockout = {"status": 200, "body": '{"error":["EGeneral:Temporary lockout"]}'}
    await stand.simulator.fault("kraken", said={"BalanceEx": lockout})
    async with program(stand, gateway, "kraken") as made:
        with pytest.raises(ccxt.BaseError, match="EGeneral:Temporary lockout"):  # to the letter
            await made.fetch_balance()
        before = await came(stand, "kraken")
        with pytest.raises(ccxt.ExchangeNotAvailable, match="paused: not sent: the exchange has to be left alone"):
            await made.fetch_balance()
    assert await came(stand, "kraken") == before

    async def fleet_is_paused() -> bool:
        answer = await stand.client.ask("fetch_ticker", {"symbol": SYMBOL}, exchanges=["kraken"], deadline_ms=soon())
        return not answer.result.ok and "pause" in str(answer.result.error)

    await wait_until(fleet_is_paused, "the fleet leaves the exchange alone")
    call = await signed_headers(stand, "kraken", "BalanceEx", ["private"], "POST", {})
    status, headers, text = await send(gateway, call, "kraken")
    assert (status, headers["X-Fleet-Error"], int(headers["Retry-After"]) > 60) == (503, "paused", True), text


def soon() -> int:
    return int(time.time() * 1000) + 2_000


async def test_what_is_not_sent_and_what_may_have_arrived_are_told_apart(stand: Stand, gateway: GatewayService) -> None:
    order = "trade/batch-orders", ["private"], "POST", [{"instId": "BTC-USDT", "sz": "1"}]
    balance = await signed_headers(stand, "okx", "account/balance", ["private"], "GET", {})
    assert (await send(gateway, balance, "okx"))[0] == 200

    async def ends(**headers: str) -> tuple[int, str, str, int]:
        before = await came(stand, "okx")
        call = await signed_headers(stand, "okx", *order)
        status, said, text = await send(gateway, call, "okx", **headers)
        return status, said.get("X-Fleet-Error", ""), text, await came(stand, "okx") - before

    await stand.simulator.fault("okx", hang=True)
    status, error, text, sent = await ends(Prefer="wait=1")
    assert (status, error, sent) == (504, "outcome_unknown", 1), text
    assert "sent, outcome unknown: no answer came in time" in text
    await stand.simulator.fault("okx", down="reset")
    status, error, text, _ = await ends()
    assert (status, error) == (502, "outcome_unknown"), text
    assert "sent, outcome unknown" in text
    await stand.simulator.fault("okx", garbage="truncated")
    status, error, text, sent = await ends()
    assert (status, error, sent) == (502, "outcome_unknown", 1), text
    await stand.simulator.fault("okx", down="refused")
    status, error, text, sent = await ends()
    assert (status, error, sent) == (503, "exchange_unavailable", 0), text
    assert "not sent: no connection" in text
    await stand.simulator.clear("okx")
    # One that the exchange took for idle: it is not sent again, reads neither.
    await stand.simulator.fault("okx", hangs_up=True)
    for _ in range(2):
        before = await came(stand, "okx")
        status, _, text = await send(gateway, balance, "okx")
        assert status in (200, 502)
        assert await came(stand, "okx") == before
    seen = await gateway.metrics()
    assert seen["fleet_gateway_signed_total", "anyone", "unknown", "okx"] >= 3
    assert seen["fleet_gateway_signed_total", "anyone", "not_sent", "okx"] == 1


async def test_where_there_is_no_budget_in_time_it_is_not_sent(vhost: str, redis_url: str, tmp_path: Path) -> None:
    """And nothing breaks a limit: beside a fleet that collects, and beside a program charged for the same account."""
    async with Simulator(exchanges=["okx"]) as simulator:
        config = {**simulated(simulator.urls), **QUICK, "gateway": {"signed": True}}
        async with Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=1) as fleet:
            gateway = await fleet.add_gateway()
            lead = f"{gateway.url}/okx/www.okx.com"
            through = {"urls": {"api": {"rest": lead}}, "enableRateLimit": False, **keys()}
            own = {**ccxt_config("okx", simulator.urls["okx"]), **keys()}
            okx: Any = ccxt.okx
            bot = okx({**through, "timeout": 5_000})
            beside = charged(okx(own), redis_url, max_wait_s=5)
            counts = {"answered": 0, "not sent": 0, "beside": 0, "fleet": 0}
            ends_s = time.monotonic() + 10

            async def trades(number: int) -> None:
                while time.monotonic() < ends_s:
                    try:
                        if number % 2:  # the account's limit
                            await bot.private_get_account_balance()
                        else:  # the address's
                            await bot.fetch(f"{lead}/api/v5/market/ticker?instId=BTC-USDT", "GET", signed())
                        counts["answered"] += 1
                    except ccxt.ExchangeNotAvailable as error:
                        assert "not sent" in str(error)
                        counts["not sent"] += 1
                    except ccxt.RequestTimeout as error:  # where others use the machine
                        assert "sent, outcome unknown" in str(error)

            def signed() -> dict[str, str]:
                return {"OK-ACCESS-KEY": ANNA.key, "Prefer": "wait=2"}

            async def reads_beside() -> None:
                while time.monotonic() < ends_s:
                    with contextlib.suppress(ccxt.RateLimitExceeded):
                        await beside.private_get_account_balance()
                        counts["beside"] += 1

            async def collects() -> None:
                async with aiohttp.ClientSession() as session:
                    while time.monotonic() < ends_s:
                        url = f"{lead}/api/v5/market/ticker?instId=ETH-USDT&n={time.monotonic_ns()}"
                        async with session.get(url) as answer:
                            counts["fleet"] += answer.status == 200

            bot.headers = {"Prefer": "wait=2"}
            try:
                await asyncio.gather(
                    *(trades(number) for number in range(40)), *(reads_beside() for _ in range(5)), collects()
                )
            finally:
                await bot.close()
                await beside.close()
            assert all(counts.values()), counts
            assert (await simulator.counters())["violations"] == 0


async def test_a_call_whose_caller_hangs_up_while_it_waits_is_not_sent(stand: Stand, gateway: GatewayService) -> None:
    async def balances() -> int:
        endpoints = (await stand.simulator.counters())["exchanges"]["okx"]["endpoints"]
        return int(endpoints.get("/api/v5/account/balance", 0))

    async def under_way() -> float:
        return (await gateway.metrics()).get(("fleet_gateway_in_flight", "anyone"), 0)

    call = await signed_headers(stand, "okx", "account/balance", ["private"], "GET", {})
    before = await balances()
    asked = [asyncio.create_task(send(gateway, call, "okx", Prefer="wait=60")) for _ in range(100)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)

    async def are_gone() -> bool:
        return not await under_way()

    await wait_until(are_gone, "nothing is under way")
    sent = await balances() - before
    assert sent < 100
    assert (await send(gateway, call, "okx", Prefer="wait=60"))[0] == 200  # which stood behind all of them
    assert await balances() - before == sent + 1


async def test_an_answer_that_is_too_large_is_none(stand: Stand, tmp_path: Path) -> None:
    async with signing(stand, tmp_path) as gateway:
        config = tmp_path / "fleet.toml"
        text = config.read_text(encoding="utf-8")
        assert "[worker]\n" in text
        config.write_text(text.replace("[worker]\n", "[worker]\nmax_markets_mib = 0.0625\n"), encoding="utf-8")
        large = {"status": 200, "body": f'{{"code":"0","data":["{"x" * 300_000}"]}}'}
        await stand.simulator.fault("okx", said={"account/balance": large})
        call = await signed_headers(stand, "okx", "account/balance", ["private"], "GET", {})

        async def is_lost() -> bool:
            status, headers, text = await send(gateway, call, "okx")
            found = (status, headers.get("X-Fleet-Error")) == (502, "outcome_unknown")
            return found and "larger than worker.max_markets_mib" in text

        await wait_until(is_lost, "the configuration is in use")


async def test_only_hosts_and_paths_of_the_lane_s_own_class(stand: Stand, gateway: GatewayService) -> None:
    before = (await stand.simulator.counters())["exchanges"]
    for target, status, said in (
        ("/binance/evil.example/api/v3/order", 422, "binance has no API at https://evil.example"),
        ("/binance/api.kraken.com/0/private/Balance", 422, "binance has no API at https://api.kraken.com"),
        ("/binance/127.0.0.1:15672/api/users", 422, "binance has no API at https://127.0.0.1:15672"),
        ("/binance/169.254.169.254/latest", 422, "binance has no API at"),
        ("/binance/api.binance.com/api/v3/nothing", 422, "binance has no POST /api/v3/nothing in ccxt"),
        ("/binance/api.binance.com/api/v3/%2e%2e/order", 400, "its path leads elsewhere"),
        ("/ftx/ftx.com/api/orders", 404, "no lane reaches 'ftx'"),
        ("/v1/fetch_balance", 403, "x-mbx-apikey"),
    ):
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                URL(f"{gateway.url}{target}", encoded=True), data="a=1", headers={"X-MBX-APIKEY": ANNA.key}
            ) as answer,
        ):
            text = await answer.text()
            assert (answer.status, said in text) == (status, True), (target, text)
    # A private call without a key is the exchange's to refuse; here it could be charged to nobody.
    status, _, text = await send(gateway, ("DELETE", "https://api.binance.com/api/v3/order?a=1", {}, ""), "binance")
    assert (status, "x-mbx-apikey has no key in it" in text) == (403, True), text
    counters = (await stand.simulator.counters())["exchanges"]
    assert all(
        counters[name]["endpoints"].get(path) == before[name]["endpoints"].get(path) for name, path in ORDERS.items()
    )


async def test_a_lane_s_address_is_named_where_there_are_several(vhost: str, redis_url: str, tmp_path: Path) -> None:
    async with Simulator(exchanges=["okx"]) as simulator:
        (lane,) = simulated(simulator.urls)["lanes"].values()
        lanes = {f"okx.a{number}": {**lane, "local_addr": f"127.0.8.{number}"} for number in (1, 2)}
        config = {"lanes": lanes, **QUICK, "gateway": {"signed": True}}
        async with Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=1) as fleet:
            gateway = await fleet.add_gateway()
            okx: Any = ccxt.okx
            made = okx(keys())
            made.timeout_on_exit = 0
            signed = made.sign("account/balance", ["private"], "GET", {})
            call = "GET", signed["url"], signed["headers"], ""
            status, _, text = await send(gateway, call, "okx")
            assert (status, "name one of okx.a1, okx.a2" in text) == (400, True), text
            status, headers, text = await send(gateway, call, "okx.a2")
            assert (status, headers["X-Fleet-Lane"]) == (200, "okx.a2"), text
            clients = (await simulator.counters())["exchanges"]["okx"]["clients"]
            assert clients["127.0.8.2"] >= 1
            await made.close()


async def test_nothing_of_a_call_shows(stand: Stand, tmp_path: Path) -> None:
    """Whatever the exchange and the connection do, and whatever libraries have to log."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(
        "import logging\nconfigure = logging.basicConfig\n"
        "logging.basicConfig = lambda **how: configure(**{**how, 'level': logging.DEBUG})\n",
        encoding="utf-8",
    )
    async with signing(stand, tmp_path, PYTHONPATH=str(hooks)) as gateway:
        call = await signed_headers(
            stand, "binance", "order", ["private"], "POST", {"symbol": "C0NARYUSDT", "side": "BUY", "price": "7.31"}
        )
        method, url, headers, body = call
        signature = re.search(r"signature=(\w+)", f"{url}&{body}")
        assert signature
        # It repeats what it was sent, where it refuses.
        echo = f"At 7.31 too many: {headers['X-MBX-APIKEY']} {url} {body}"
        texts: list[str] = []
        for fault in (
            {"said": {"order": {"status": 429, "body": echo, "headers": {"Retry-After": "1"}}}},
            {"said": {"order": {"status": 418, "body": echo, "headers": {"Retry-After": "1"}}}},
            {"hang": True},
            {"down": "reset"},
            {"down": "refused"},
            {"garbage": "html"},
        ):
            await stand.lift()
            await stand.simulator.fault("binance", **fault)
            status, _, text = await send(gateway, call, "binance", Prefer="wait=1")
            texts += [] if status in (200, 418, 429) else [text]  # the exchange's own comes to the letter
        for bad in (
            (method, url.replace("api.binance.com", "evil.example"), headers, body),
            (method, url.replace("/order", "/nothing"), headers, body),
            (method, url + "?signature=1&x=%zz", headers, "{" + body),
            ("GET", f"https://api.binance.com/api/v3/order?{body}", headers, ""),
            ("PUT", url, {**headers, "Content-Type": "multipart/form-data"}, body),
        ):
            texts.append((await send(gateway, bad, "nothing" if "zz" in bad[1] else "binance", Prefer="wait=1"))[2])
        held = " ".join(map(str, await held_by_redis(stand.redis.url)))
        shown = {
            "log": gateway.log.read_text(encoding="utf-8"),
            "metrics": (await gateway.ask("metrics"))[1],
            "status": (await gateway.ask("status"))[1],
            "errors": " ".join(texts),
            "Redis": held,
        }
    secrets = (ANNA.key, signature[1], "C0NARYUSDT", " 7.31 ", body[:40])
    found = [
        f"{where}: {text[max(0, text.index(secret) - 200) : text.index(secret) + 60]}"
        for where, text in shown.items()
        for secret in secrets
        if secret in text
    ]
    assert not found
    assert "exchange_paused" in shown["log"]


TOKENS = '[gateway.tokens]\nbot-1 = { env = "BOT_1" }\n'


async def test_a_caller_s_token_is_not_sent_on(stand: Stand, tmp_path: Path) -> None:
    async with signing(stand, tmp_path, TOKENS, BOT_1="of-the-fleet") as gateway:
        call = await signed_headers(stand, "okx", "account/balance", ["private"], "GET", {})
        assert (await send(gateway, call, "okx"))[0] == 401
        for headers in ({"X-Fleet-Token": "of-the-fleet"}, {"Authorization": "Bearer of-the-fleet"}):
            status, _, text = await send(gateway, call, "okx", **headers)
            assert status == 200, text
        seen = await gateway.metrics()
        assert seen["fleet_gateway_signed_total", "bot-1", "answered", "okx"] == 2
        assert "of-the-fleet" not in gateway.log.read_text(encoding="utf-8")


async def test_it_may_be_switched_while_it_runs(stand: Stand, tmp_path: Path) -> None:
    async with signing(stand, tmp_path) as gateway:
        config = tmp_path / "fleet.toml"
        text = config.read_text(encoding="utf-8")

        async def status() -> int:
            call = await signed_headers(stand, "okx", "account/balance", ["private"], "GET", {})
            return (await send(gateway, call, "okx"))[0]

        assert await status() == 200
        for said, wanted in (("signed = false", 403), ("signed = true", 200), ("signed = true\nwait_s = 8", 200)):
            config.write_text(text.replace("signed = true", said), encoding="utf-8")

            async def is_so(wanted: int = wanted) -> bool:
                return await status() == wanted

            await wait_until(is_so, said)


def test_what_it_needs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("[lanes.kraken]\n[gateway]\nsigned = true\n", encoding="utf-8")
    config = load(file, {})
    assert config.gateway.signed
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ccxt", "workers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'ccxt-fleet[worker]'")):
        service._sender(config)  # pyright: ignore[reportPrivateUsage]


def test_a_gateway_without_signed_calls_never_imports_ccxt() -> None:
    assert importlib.util.find_spec("ccxt")
    config = load(Path("deploy/fleet.toml"), {})
    assert service._sender(config) is None  # pyright: ignore[reportPrivateUsage]
