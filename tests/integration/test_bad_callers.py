"""One caller asks a lane again and again for what it can't answer. Others are answered, the lane stays healthy."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from deploy.simulator.faults import HTML, Said
from schemas.messages import ErrorCode
from tests.support.fleet import Answer, Client, Stand, set_aside, wait_until

COINS = ("BTC", "ETH", "SOL", "XRP", "ADA")
METHODS = ("fetch_ticker", "fetch_order_book", "fetch_trades", "fetch_ohlcv")
BAD_COINS = ("DOGE", "LTC", "BCH", "LINK", "DOT")
BARRED = ("ATOM", "XLM", "ICP", "APT", "ARB")  # of one test alone: a lane that refused a symbol is known to lack it
TEN = ("DOGE", "LTC", "BCH", "LINK", "DOT", "AVAX", "UNI", "AAVE", "FIL", "ETC")  # worked before
OK = "ok"
PAGE = HTML.decode()


class Bad(Struct, frozen=True):
    """What a bad caller asks of a lane.

    Args:
        lane: which.
        requests: what, round and round.
        ends: how each of them may end: by code, or `OK`.
        said: what the exchange answers, word for word, to targets that hold these texts.
        of_connection: where such failures come before anything else was answered, a lane may step aside for a trial.
    """

    lane: str
    requests: Sequence[dict[str, Any]]
    ends: frozenset[str]
    said: dict[str, Said] = {}
    of_connection: bool = False


def each(method: str, coins: Sequence[str] = BAD_COINS, **args: object) -> list[dict[str, Any]]:
    return [{"method": method, "args": {"symbol": f"{coin}/USDT", **args}} for coin in coins]


def said(text: str, body: object, status: int = 200, content_type: str = "application/json") -> dict[str, Said]:
    words = body if isinstance(body, str) else msgspec.json.encode(body).decode()
    return {text.format(coin): Said(status, words, content_type) for coin in (*BAD_COINS, *BARRED)}


def okx(*data: object, code: str = "0") -> dict[str, object]:
    return {"code": code, "msg": "", "data": list(data)}


def ends(*codes: str) -> frozenset[str]:
    return frozenset(map(str, codes))


FAILS = ends(ErrorCode.DEADLINE_EXCEEDED, ErrorCode.ATTEMPTS_EXHAUSTED)
LONG = {"x": "y" * 20_000}
BAD: dict[str, Bad] = {
    # Right, and empty.
    "empty books": Bad(
        "okx",
        each("fetch_order_book"),
        ends(OK),
        said("books?instId={}-", okx({"asks": [], "bids": [], "ts": "1795904222000", "seqId": 1})),
    ),
    "tickers without prices": Bad(
        "okx",
        each("fetch_ticker"),
        ends(OK),
        said("ticker?instId={}-", okx({"instId": "X-USDT", "last": "", "askPx": "", "bidPx": "", "ts": "1"})),
    ),
    "no candles": Bad("okx", each("fetch_ohlcv"), ends(OK), said("candles?instId={}-", okx())),
    "no body where there are no trades": Bad("okx", each("fetch_trades"), ends(OK), said("trades?instId={}-", "")),
    "no symbols": Bad("okx", [{"method": "fetch_tickers", "args": {"symbols": []}}], ends(OK)),
    # What ccxt refuses by itself.
    "a funding rate of a spot symbol": Bad("okx", each("fetch_funding_rate"), ends(ErrorCode.NOT_SUPPORTED)),
    "a book size that the exchange lacks": Bad(
        "htx", each("fetch_order_book", limit=7), ends(ErrorCode.NOT_SUPPORTED, ErrorCode.INVALID_ARGUMENTS)
    ),
    # 4xx that speak of the request.
    "20 KB of params": Bad(
        "okx", each("fetch_ticker", params=LONG), ends(ErrorCode.INVALID_ARGUMENTS, ErrorCode.TOO_LARGE)
    ),
    "URI too long": Bad(
        "okx", each("fetch_ticker"), ends(ErrorCode.TOO_LARGE), said("ticker?instId={}-", PAGE, 414, "text/html")
    ),
    "400 without JSON": Bad(
        "binance",
        each("fetch_ticker"),
        ends(ErrorCode.INVALID_ARGUMENTS),
        said("symbol={}USDT", "Bad Request", 400, "text/plain"),
    ),
    "404 without JSON": Bad(
        "okx", each("fetch_ticker"), ends(ErrorCode.INVALID_ARGUMENTS), said("instId={}-", PAGE, 404, "text/html")
    ),
    # Symbols' own trouble.
    "barred by words": Bad(
        "okx", each("fetch_ticker", BARRED), ends(ErrorCode.BAD_SYMBOL), said("instId={}-", okx(code="51155"))
    ),
    "barred by status": Bad(
        "binance",
        each("fetch_order_book"),
        ends(ErrorCode.RESTRICTED),
        said("symbol={}USDT", '{"code":0,"msg":"restricted"}', 451),
    ),
    "words that nobody knows": Bad("okx", each("fetch_ticker"), FAILS, said("instId={}-", okx(code="59999"))),
    "JSON of another form": Bad(
        "okx", each("fetch_order_book"), FAILS, said("instId={}-", okx({"asks": [["no", "number"]], "bids": [["x"]]}))
    ),
    "one symbol answers 500": Bad(
        "binance", each("fetch_ticker", ["DOGE"]), FAILS, said("symbol={}USDT", '{"code":-1000,"msg":"?"}', 500), True
    ),
    "one symbol answers a page": Bad(
        "okx", each("fetch_ticker", ["DOGE"]), FAILS, said("instId={}-", PAGE, 200, "text/html"), True
    ),
    # A parameter that asks for something else than the arguments do.
    "params of another pair": Bad(
        "okx",
        [*each("fetch_ticker", params={"instId": "ETH-USDT"}), *each("fetch_order_book", params={"instId": "X"})],
        ends(OK, ErrorCode.BAD_SYMBOL, *FAILS, ErrorCode.INVALID_ARGUMENTS),
    ),
}  # fmt: skip


async def well(stand: Stand, lane: str, since: int) -> None:
    """The dispatcher has not set the lane aside since its log had so many bytes."""
    await stand.reported()
    log = stand.fleet.dispatchers[0].log.read_bytes()[since:].decode()
    assert not [each for each in set_aside(log) if each.startswith(f"{lane} ")]
    await wait_until(lambda: stand.healthy(lane), "the lane is healthy")


@pytest.mark.parametrize("case", BAD)
async def test_twenty_others_are_answered(stand: Stand, case: str) -> None:
    bad, client = BAD[case], stand.client
    await stand.simulator.fault(bad.lane, said={text: msgspec.to_builtins(words) for text, words in bad.said.items()})
    since = len(stand.fleet.dispatchers[0].log.read_bytes())
    # What fails on and on ends soon; what ends at once has time for its budget.
    within_ms = 5_000 if bad.ends & FAILS else 30_000
    pinned = {"exchanges": [bad.lane]}

    async def ask_badly() -> list[str]:
        sent: list[str] = []
        deadline_ms = int(time.time() * 1000) + within_ms
        for number in range(40):
            request = bad.requests[number % len(bad.requests)]
            sent.append(await client.send({**request, **pinned, "deadline_ms": deadline_ms}))
        return [answer.code or OK for answer in [await client.answer(one) for one in sent]]

    async def ask_well() -> None:
        sent = [
            await client.send({"method": method, "args": {"symbol": f"{coin}/USDT"}, **pinned})
            for coin in COINS
            for method in METHODS
        ]
        answers = [await client.answer(one) for one in sent]
        assert all(answer.result.ok for answer in answers), [answer for answer in answers if not answer.result.ok][:3]

    await ask_well()
    codes, _ = await asyncio.gather(ask_badly(), ask_well())
    assert set(codes) <= bad.ends
    await ask_well()
    if bad.of_connection:
        await wait_until(lambda: stand.healthy(bad.lane), "the lane is healthy")
        since = len(stand.fleet.dispatchers[0].log.read_bytes())
        await asyncio.gather(ask_well(), ask_badly())  # by now it is known for that symbol's trouble
    await well(stand, bad.lane, since)


@pytest.mark.parametrize("case", ["words that nobody knows", "barred by status", "JSON of another form"])
async def test_a_bad_caller_alone_sets_no_lane_aside(stand: Stand, case: str) -> None:
    """Five symbols that never worked, and nobody asks for anything else."""
    bad = BAD[case]
    await stand.simulator.fault(bad.lane, said={text: msgspec.to_builtins(words) for text, words in bad.said.items()})
    since = len(stand.fleet.dispatchers[0].log.read_bytes())
    deadline_ms = int(time.time() * 1000) + 5_000
    sent = [
        await stand.client.send({**request, "exchanges": [bad.lane], "deadline_ms": deadline_ms})
        for request in bad.requests
    ]
    for one in sent:
        assert (await stand.client.answer(one)).code in bad.ends
    await well(stand, bad.lane, since)


async def test_an_exchange_of_which_every_answer_is_unusable_stands_aside(stand: Stand) -> None:
    """Whatever was asked before, and also where all requests are alike: a probe finds out."""
    words = {"/api/v5/": msgspec.to_builtins(Said(body='{"code":"59999","msg":"?","data":[]}'))}
    await stand.simulator.fault("okx", said=words)
    request = {"method": "fetch_ticker", "args": {"symbol": "UNI/USDT"}, "exchanges": ["okx"]}
    sent = [await stand.client.send({**request, "deadline_ms": int(time.time() * 1000) + 60_000}) for _ in range(3)]

    async def aside() -> bool:
        return not await stand.healthy("okx")

    await wait_until(aside, "okx stands aside")
    await stand.simulator.clear("okx")
    await wait_until(lambda: stand.healthy("okx"), "okx is back")
    for one in sent:
        await stand.client.answer(one, timeout_s=60)


async def test_a_lane_is_left_at_once_though_one_symbol_alone_is_asked(stand: Stand) -> None:
    await stand.simulator.fault("okx", down="refused")
    order: dict[str, Any] = {"exchanges": ["okx", "htx"], "strategy": "failover"}
    for _ in range(6):
        assert (await stand.client.ask("fetch_ticker", {"symbol": "AAVE/USDT"}, **order)).result.ok

    async def aside() -> bool:
        return not await stand.healthy("okx")

    await wait_until(aside, "okx stands aside")


@pytest.mark.parametrize(
    "words", [Said(200, PAGE, "text/html"), Said(500, '{"code":"1","msg":"?"}')], ids=["a page", "a 5xx"]
)
async def test_ten_symbols_that_worked_before_harm_no_other_caller_on_an_idle_lane(stand: Stand, words: Said) -> None:
    """They look like an outage at first, as nothing else is asked. All other requests are answered then."""
    client, pinned = stand.client, {"exchanges": ["okx"]}
    for _ in range(2):
        for request in each("fetch_ticker", TEN):
            assert (await client.ask(request["method"], request["args"], **pinned)).result.ok
    await stand.simulator.fault("okx", said={f"instId={coin}-": msgspec.to_builtins(words) for coin in TEN})

    enough = asyncio.Event()

    async def ask_badly(another: Client, request: dict[str, Any]) -> None:
        while not enough.is_set():
            deadline_ms = int(time.time() * 1000) + 3_000
            await another.ask(request["method"], request["args"], **pinned, deadline_ms=deadline_ms)

    async def ask_well(number: int) -> Answer:
        request = each(METHODS[number % len(METHODS)], COINS)[number % len(COINS)]
        deadline_ms = int(time.time() * 1000) + 10_000
        return await client.ask(request["method"], request["args"], **pinned, deadline_ms=deadline_ms)

    async def aside() -> bool:
        return not await stand.healthy("okx")

    async with Client.on(stand.url, topology=False) as another:
        bad = [asyncio.create_task(ask_badly(another, request)) for request in each("fetch_ticker", TEN) * 2]
        await wait_until(aside, "okx stands aside")
        answers: list[Answer] = []
        for first in range(0, 40, 8):
            answers += await asyncio.gather(*(ask_well(number) for number in range(first, first + 8)))
        enough.set()
        await asyncio.gather(*bad)  # their last answers, which would be news to the next test
    assert all(answer.result.ok for answer in answers), Counter(answer.code for answer in answers)
