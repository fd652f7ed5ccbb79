"""The fleet's HTTP door: an exchange's answers to the letter, reads by ccxt's names, and what a caller gets else."""

import asyncio
import json
import re
import time
import tomllib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from deploy.local import STOP_GRACE_S, GatewayService, Services, simulated
from deploy.simulator.process import Simulator
from schemas.errors import ConfigError
from schemas.runtime import modules
from tests.support import gateways, node
from tests.support.commands import command
from tests.support.fleet import QUICK, Stand, wait_until
from tests.support.reads import SYMBOL

DAY_MS = 1_760_000_000_000 // 86_400_000 * 86_400_000
DAY_S = DAY_MS // 1000
# Answers that are the same whenever they are asked for, or wrong in the same way.
SAME = {
    "binance": [
        f"https://api.binance.com/api/v3/klines?symbol=BTCUSDT&interval=1h&startTime={DAY_MS}&endTime={DAY_MS + 9**8}",
        f"https://api.binance.com/api/v3/klines?interval=1d&limit=3&symbol=ETHUSDT&endTime={DAY_MS}",
        "https://api.binance.com/api/v3/klines?symbol=NOTHING&interval=1h",
        "https://api.binance.com/api/v3/klines?symbol=BTCUSDT&interval=soon",
        "https://api.binance.com/api/v3/exchangeInfo",
        "https://fapi.binance.com/fapi/v1/exchangeInfo",
    ],
    "okx": [
        f"https://www.okx.com/api/v5/market/history-candles?instId=BTC-USDT&bar=1H&after={DAY_MS}&limit=5",
        "https://www.okx.com/api/v5/public/instruments?instType=SPOT",
        "https://www.okx.com/api/v5/market/candles?instId=NOTHING-USDT&bar=1H",
    ],
    "htx": ["https://api.huobi.pro/v1/common/symbols", "https://api.huobi.pro/v2/reference/currencies"],
    "coinbase": [
        "https://api.coinbase.com/api/v3/brokerage/market/products/BTC-USD/candles"
        f"?start={DAY_S}&end={DAY_S + 18000}&granularity=ONE_HOUR",
        "https://api.coinbase.com/api/v3/brokerage/market/products/BTC-NOTHING/candles?granularity=ONE_HOUR",
    ],
    "kraken": [
        "https://api.kraken.com/0/public/AssetPairs?pair=XBTUSDT",
        "https://api.kraken.com/0/public/Assets",
        "https://api.kraken.com/0/public/Ticker?pair=NOTHING",
    ],
}


@pytest.fixture
async def gateway(stand: Stand) -> AsyncGenerator[GatewayService]:
    """Yield a gateway of the session's fleet."""
    async with gateways.beside(stand) as running:
        yield running


@pytest.fixture
async def session() -> AsyncGenerator[aiohttp.ClientSession]:
    """Yield what asks, and takes what comes as it is."""
    async with aiohttp.ClientSession() as client:
        yield client


def through(gateway: GatewayService, exchange: str, url: str) -> str:
    return url.replace("https://", f"{gateway.url}/{exchange}/", 1)


async def test_an_answer_is_the_exchange_s_own_to_the_letter(
    stand: Stand, gateway: GatewayService, session: aiohttp.ClientSession
) -> None:
    for exchange, urls in SAME.items():
        for number, url in enumerate(urls):
            parts = urlsplit(url)
            direct = stand.simulator.urls[exchange] + parts.path + (f"?{parts.query}" if parts.query else "")
            # From an address of its own, which has its own limits.
            connector = aiohttp.TCPConnector(local_addr=(f"127.0.9.{number + 1}", 0))
            async with aiohttp.ClientSession(connector=connector) as beside, beside.get(direct) as answer:
                wanted, body = answer, await answer.read()
            async with session.get(through(gateway, exchange, url)) as answer:
                assert (answer.status, await answer.read()) == (wanted.status, body), url
                assert answer.headers["Content-Type"] == wanted.headers["Content-Type"]
                assert answer.headers["X-Fleet-Lane"] == exchange
                used = {name.lower() for name in wanted.headers if name.lower().startswith("x-")}
                assert used <= {name.lower() for name in answer.headers}, url


async def test_what_the_fleet_refuses_has_a_status_and_says_why(
    gateway: GatewayService, session: aiohttp.ClientSession
) -> None:
    for target, status, said in (
        ("/binance/api.binance.com/api/v3/account", 422, "no public GET /api/v3/account"),
        ("/binance/169.254.169.254/latest/meta-data", 422, "no public API at https://169.254.169.254"),
        ("/binance/2130706433/x", 422, "no public API at https://2130706433"),
        ("/binance/localhost:15672/api/users", 422, "no public API at https://localhost:15672"),
        ("/binance/api.kraken.com/0/public/Time", 422, "no public API at https://api.kraken.com"),
        ("/ftx/ftx.com/api/markets", 404, "no lane reaches 'ftx'"),
    ):
        async with session.get(gateway.url + target) as answer:
            text = await answer.text()
            assert (answer.status, said in text) == (status, True), text
            assert answer.content_type == "text/plain"
            assert answer.headers["X-Fleet-Error"] in {"not_supported", "unknown_exchange"}
    async with session.post(f"{gateway.url}/binance/api.binance.com/api/v3/order", data="{}") as answer:
        assert answer.status == 422


async def test_reads_by_ccxt_s_names(stand: Stand, gateway: GatewayService, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{gateway.url}/v1/fetch_ticker?symbol={SYMBOL}&exchanges=okx") as answer:
        result = await answer.json()
        assert (answer.status, result["ok"], result["exchange"]) == (200, True, "okx")
        assert result["data"]["symbol"] == SYMBOL
    body = {"symbol": SYMBOL, "timeframe": "1h", "limit": 2, "exchanges": ["kraken"]}
    async with session.post(f"{gateway.url}/v1/fetch_ohlcv", json=body) as answer:
        result = await answer.json()
        assert (answer.status, result["exchange"], len(result["data"])) == (200, "kraken", 2)
    async with session.get(f"{gateway.url}/v1/fetch_time?exchanges_mode=all") as answer:
        results = await answer.json()
        assert {each["exchange"] for each in results if each["ok"]} == set(stand.fleet.lanes)
    for target, status, code in (
        ("fetch_ticker?symbol=BTC/NOTHING", 422, "bad_symbol"),
        ("fetch_ticker?symbol=BTC/USDT&exchanges=ftx", 404, "unknown_exchange"),
        ("fetch_ticker", 422, "invalid_arguments"),
        ("fetch_ticker?symbl=x", 400, "bad_call"),
        ("fetch_balance", 403, "signed_call"),
        ("create_order?symbol=BTC/USDT", 404, "not_found"),
    ):
        async with session.get(f"{gateway.url}/v1/{target}") as answer:
            result = await answer.json()
            assert (answer.status, result["ok"], result["error"]["code"]) == (status, False, code), result
            assert answer.headers["X-Fleet-Error"] == code


async def test_pages(gateway: GatewayService, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{gateway.url}/v1/openapi.json") as answer:
        assert "/v1/fetch_ticker" in (await answer.json())["paths"]
    async with session.get(f"{gateway.url}/") as answer:
        assert "fetch_ticker" in await answer.text()


async def test_a_refusal_of_the_exchange_is_never_passed_on(
    stand: Stand, gateway: GatewayService, session: aiohttp.ClientSession
) -> None:
    """It is told when the caller's time is over, with the time after which another try may help."""
    await stand.simulator.fault("kraken", ban_s=120)
    url = f"{gateway.url}/kraken/api.kraken.com/0/public/Time"
    began_s = time.monotonic()
    async with session.get(url, headers={"Prefer": "wait=2"}) as answer:
        text = await answer.text()
        assert (answer.status, answer.headers["X-Fleet-Error"]) == (503, "deadline_exceeded"), text
        assert int(answer.headers["Retry-After"]) >= 1
    assert time.monotonic() - began_s > 1.5  # it has waited for it
    await stand.simulator.clear("kraken")
    await stand.simulator.reset()  # the first call met the ban


async def test_a_crowd_of_calls_is_paced_and_never_refused(stand: Stand, gateway: GatewayService) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(number: int) -> int:
            url = f"{gateway.url}/okx/www.okx.com/api/v5/market/ticker?instId=BTC-USDT&number={number}"
            async with session.get(url, headers={"Prefer": "wait=30"}) as answer:
                await answer.read()
                return answer.status

        statuses = await asyncio.gather(*(ask(number) for number in range(60)))
    assert set(statuses) == {200}


async def test_who_leaves_is_not_waited_for(stand: Stand, gateway: GatewayService) -> None:
    await stand.simulator.fault("kraken", down="refused")
    request = b"GET /kraken/api.kraken.com/0/public/Time HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=60\r\n\r\n"
    under_way = ("fleet_gateway_in_flight", "anyone")
    writers: list[asyncio.StreamWriter] = []
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request)
        writers.append(writer)

    async def count() -> float:
        return (await gateway.metrics()).get(under_way, 0.0)

    async def all_there() -> bool:
        return await count() == 5

    async def all_gone() -> bool:
        return await count() == 0

    await wait_until(all_there, "five requests are under way")
    for writer in writers:
        writer.close()
    await wait_until(all_gone, "none is under way")


async def test_equal_calls_share_an_answer_as_the_configuration_says(
    stand: Stand, gateway: GatewayService, session: aiohttp.ClientSession
) -> None:
    """A list of markets is good for minutes: twenty callers cost the exchange one call, and one that follows none."""
    url = f"{gateway.url}/binance/api.binance.com/api/v3/exchangeInfo?symbol=BTCUSDT"

    async def calls() -> int:
        counts = (await stand.simulator.counters())["exchanges"]["binance"]["endpoints"]
        return sum(count for endpoint, count in counts.items() if "exchangeInfo" in endpoint)

    async def ask() -> tuple[int, bytes, str | None]:
        async with session.get(url) as answer:
            return answer.status, await answer.read(), answer.headers.get("X-Fleet-Age-Ms")

    before = await calls()
    answers = [*await asyncio.gather(*(ask() for _ in range(20))), await ask()]
    assert {(status, body) for status, body, _ in answers} == {(200, answers[0][1])}
    assert await calls() - before == 1
    assert sum(age_ms is None for *_, age_ms in answers) == 1
    seen = await gateway.metrics()
    assert seen["fleet_gateway_shared_total", "anyone", "binance"] == 20


async def test_what_is_asked_shows_in_metrics(gateway: GatewayService, session: aiohttp.ClientSession) -> None:
    for target in (
        "/kraken/api.kraken.com/0/public/Time",
        "/ftx/ftx.com/x",
        "/v1/fetch_time?exchanges=okx",
        "/X/y/z",
    ):
        async with session.get(gateway.url + target) as answer:
            await answer.read()
    seen = await gateway.metrics()
    assert seen["fleet_gateway_requests_total", "anyone", "kraken", "200"] == 1
    assert seen["fleet_gateway_requests_total", "anyone", "okx", "200"] == 1
    assert seen["fleet_gateway_requests_total", "anyone", "other", "404"] >= 1
    assert seen["fleet_gateway_refused_total", "not_found"] >= 1
    assert seen["fleet_gateway_seconds_count", "anyone"] >= 3
    assert (await gateway.ask("healthz"))[0] == (await gateway.ask("readyz"))[0] == 200
    status = await gateway.status()
    assert (status["port"], status["callers"]) == (gateway.port, [{"name": "anyone", "error": ""}])


TOKENS = '\n[gateway]\nin_flight = 7\n[gateway.tokens]\nbot-1 = { env = "BOT_1" }\nbot-2 = { env = "BOT_2" }\n'


async def test_tokens(stand: Stand, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    config = tmp_path / "fleet.toml"
    config.write_text(stand.fleet.config_file.read_text(encoding="utf-8") + TOKENS, encoding="utf-8")
    env = {"BOT_1": "secret-one", "BOT_2": "secret-two"}
    async with gateways.beside(stand, words=["--config", str(config)], env=env) as gateway:
        url = f"{gateway.url}/kraken/api.kraken.com/0/public/Time"
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer secret"}, 401),
            ({"Authorization": "Basic secret-one"}, 401),
            ({"Authorization": "Bearer secret-one"}, 200),
            ({"X-Fleet-Token": "secret-two"}, 200),
            ({"X-Fleet-Token": "secret-two", "Host": "gateway.example"}, 200),
        ):
            async with session.get(url, headers=headers) as answer:
                assert answer.status == status, headers
                assert ("WWW-Authenticate" in answer.headers) is (status == 401)
        seen = await gateway.metrics()
        assert seen["fleet_gateway_requests_total", "bot-1", "kraken", "200"] == 1
        assert seen["fleet_gateway_requests_total", "bot-2", "kraken", "200"] == 2
        assert {each["name"] for each in (await gateway.status())["callers"]} == {"bot-1", "bot-2"}
        # A caller that is taken out is out; the others go on.
        config.write_text(
            config.read_text(encoding="utf-8").replace('bot-1 = { env = "BOT_1" }\n', ""), encoding="utf-8"
        )

        async def is_out() -> bool:
            async with session.get(url, headers={"Authorization": "Bearer secret-one"}) as answer:
                return answer.status == 401

        await wait_until(is_out, "the caller is out")
        async with session.get(url, headers={"X-Fleet-Token": "secret-two"}) as answer:
            assert answer.status == 200
        text = gateway.log.read_text(encoding="utf-8")
    assert "secret" not in text


@pytest.mark.parametrize(
    ("words", "toml", "said"),
    [
        (["--address", "0.0.0.0"], "", "whoever reaches 0.0.0.0 could use up the limits"),
        ([], TOKENS, "gateway.tokens.bot-1: the environment variable BOT_1 is not set"),
        (["--address", "192.0.2.1"], TOKENS, "can't listen on 192.0.2.1"),
    ],
)
async def test_what_it_does_not_start_with(
    stand: Stand, tmp_path: Path, words: list[str], toml: str, said: str
) -> None:
    config = tmp_path / "fleet.toml"
    config.write_text(stand.fleet.config_file.read_text(encoding="utf-8") + toml, encoding="utf-8")
    tokens = {"BOT_1": "a", "BOT_2": "b"} if "can't listen" in said else {}
    with pytest.raises(Exception, match=re.escape(said)):
        await stand.fleet.add_gateway(words=["--config", str(config), *words], env=tokens)
    stand.fleet.gateways.pop()


async def test_it_waits_for_rabbitmq_and_comes_back(stand: Stand, session: aiohttp.ClientSession) -> None:
    async with gateways.beside(stand) as gateway:
        url = f"{gateway.url}/kraken/api.kraken.com/0/public/Time"
        stand.rabbitmq.kill()
        asking = asyncio.create_task(session.get(url, headers={"Prefer": "wait=60"}))
        await asyncio.sleep(0)
        async with session.get(url, headers={"Prefer": "wait=1"}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert (await gateway.ask("readyz"))[0] == 503
        await stand.rabbitmq.start()
        async with await asking as answer:
            assert answer.status == 200, await answer.text()


async def test_a_signal_to_stop_lets_it_answer_what_it_holds(stand: Stand, session: aiohttp.ClientSession) -> None:
    async with gateways.beside(stand) as gateway:
        await stand.simulator.fault("kraken", latency_ms=1_000)
        url = f"{gateway.url}/kraken/api.kraken.com/0/public/Time"
        asking = asyncio.create_task(session.get(url))

        async def is_asked() -> bool:
            return bool((await gateway.metrics()).get(("fleet_gateway_in_flight", "anyone")))

        await wait_until(is_asked, "a request is under way")
        await gateway.stop(grace_s=STOP_GRACE_S)
        async with await asking as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(url)


async def printed(stand: Stand, exchange: str, gateway: GatewayService) -> dict[str, Any]:
    done = await command("gateway", "config", exchange, "--gateway", gateway.url, "--json", broker_url=stand.url)
    assert done.code == 0, done
    return dict(done.json)


# Only spot markets, as the simulator has.
SHIPPED = tomllib.loads(modules.FLEET_TOML.read_text(encoding="utf-8"))["lanes"]


async def test_ccxt_as_the_command_says(stand: Stand, gateway: GatewayService) -> None:
    for exchange in ("binance", "okx", "htx", "coinbase", "kraken"):
        settings = (await printed(stand, exchange, gateway))["ccxt"]
        program: Any = getattr(ccxt, exchange)({**settings, **SHIPPED[exchange].get("ccxt", {})})
        try:
            ticker = await program.fetch_ticker(SYMBOL)
            candles = await program.fetch_ohlcv(SYMBOL, "1h", limit=3)
            assert (ticker["symbol"], len(candles)) == (SYMBOL, 3)
            with pytest.raises(ccxt.BadSymbol):
                await program.fetch_ticker("BTC/NOTHING")
        finally:
            await program.close()


async def test_curl(stand: Stand, gateway: GatewayService) -> None:
    line = (await printed(stand, "kraken", gateway))["curl"]
    child = await asyncio.create_subprocess_shell(f"{line} --silent", stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    assert json.loads(out)["result"]["unixtime"] > 1_700_000_000


async def test_node(gateway: GatewayService) -> None:
    program = f"""
    fetch("{gateway.url}/okx/www.okx.com/api/v5/market/ticker?instId=BTC-USDT")
      .then((answer) => answer.json()).then((ticker) => console.log(ticker.data[0].instId));
    """
    assert await node.run(program) == "BTC-USDT\n"


async def test_one_caller_s_crowd_delays_only_that_caller(vhost: str, redis_url: str, tmp_path: Path) -> None:
    """Callers by their tokens have their shares of a limit, as programs with reply addresses have."""
    tokens = {"gateway": {"tokens": {"many": {"env": "MANY"}, "few": {"env": "FEW"}}}}
    async with Simulator(exchanges=["okx"]) as simulator:
        config = {**simulated(simulator.urls), **QUICK, **tokens}
        async with Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=1) as fleet:
            gateway = await fleet.add_gateway(env={"MANY": "m", "FEW": "f"})
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

                async def ask(token: str, number: int) -> float:
                    url = (
                        f"{gateway.url}/okx/www.okx.com/api/v5/market/candles?instId=BTC-USDT&bar=1m&limit=1&n={number}"
                    )
                    began_s = time.monotonic()
                    headers = {"X-Fleet-Token": token, "Prefer": "wait=60"}
                    async with session.get(url, headers=headers) as answer:
                        assert answer.status == 200, await answer.text()
                    return time.monotonic() - began_s

                many = [asyncio.create_task(ask("m", number)) for number in range(400)]

                async def crowded() -> bool:
                    return (await gateway.metrics()).get(("fleet_gateway_in_flight", "many"), 0) > 200

                await wait_until(crowded, "a crowd is there")
                few = await asyncio.gather(*(ask("f", 1000 + number) for number in range(5)))
                waited = await asyncio.gather(*many)
            assert max(few) < max(waited)
            assert (await simulator.counters())["exchanges"]["okx"]["violations"] == 0


async def test_a_caller_of_more_weight_has_more_of_a_limit(vhost: str, redis_url: str, tmp_path: Path) -> None:
    tokens = {"gateway": {"tokens": {"heavy": {"env": "HEAVY", "weight": 3}, "light": {"env": "LIGHT"}}}}
    async with Simulator(exchanges=["okx"]) as simulator:
        config = {**simulated(simulator.urls), **QUICK, **tokens}
        async with Services(tmp_path, config, broker_url=vhost, redis_url=redis_url, workers=1) as fleet:
            gateway = await fleet.add_gateway(env={"HEAVY": "h", "LIGHT": "l"})
            answered: list[str] = []
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

                async def ask(token: str, number: int) -> None:
                    url = f"{gateway.url}/okx/www.okx.com/api/v5/market/ticker?instId=BTC-USDT&n={token}{number}"
                    async with session.get(url, headers={"X-Fleet-Token": token, "Prefer": "wait=60"}) as answer:
                        assert answer.status == 200, await answer.text()
                    answered.append(token)

                asked = [ask(token, number) for number in range(180) for token in ("h", "l")]
                await asyncio.gather(*asked)
            # When the heavy one has all of its answers, the light one has about a third as many.
            behind = answered[: len(answered) - answered[::-1].index("h")].count("l")
            assert behind < 120, behind
            assert (await simulator.counters())["exchanges"]["okx"]["violations"] == 0


def test_the_configuration_says_who_may_ask(tmp_path: Path) -> None:
    from schemas.config import load

    file = tmp_path / "fleet.toml"
    for text, said in (
        ('address = "0.0.0.0"', "gateway.address: expected 127.0.0.1, or gateway.tokens"),
        ("wait_s = 90", "gateway.wait_s: expected at most 60, which is gateway.max_wait_s"),
        ('tokens = { a = "secret" }', "gateway.tokens"),
        ("tokens = { a = {} }", "gateway.tokens.a: expected either env or file"),
        ('tokens = { "a b" = { env = "A" } }', "gateway.tokens"),
        ("port = 70000", "gateway.port"),
        ('tokens = { a = { env = "A", weight = 0 } }', "gateway.tokens"),
        ('tokens = { a = { env = "A", weight = 1.5 } }', "gateway.tokens"),
        ('max_age_s.candles = "day"', "gateway.max_age_s.candles"),
        ("max_age_s.ticker = 1", "unknown field `ticker`"),
    ):
        file.write_text(f"[lanes.kraken]\n[gateway]\n{text}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=re.escape(said)) as caught:
            load(file, {})
        assert "secret" not in str(caught.value)
