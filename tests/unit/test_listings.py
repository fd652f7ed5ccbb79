"""Which lanes list a symbol or a timeframe, as far as the workers have reported it."""

from collections.abc import Sequence
from typing import Any

import pytest

from dispatcher.listings import CORRECTED_S, DOUBT, WORKER_GONE_S, Content, Lack, LaneKnowledge, asked
from schemas.messages import ErrorCode, Request
from schemas.runtime.listings import Knowledge, Listing, pack, unpack

LANES = ("okx", "kraken", "kraken.eu")


def content(exchange: str, *symbols: str, timeframes: Sequence[str] = ("1m", "1h")) -> Knowledge:
    listings = [
        Listing(symbol, symbol.replace("/", "-"), symbol[-4:], "swap" if ":" in symbol else "spot")
        for symbol in symbols
    ]
    return Knowledge(exchange, listings, list(timeframes), ["XBT/USD"] if "BTC/USD" in symbols else [])


def told(known: LaneKnowledge, lane: str, of: Knowledge, *, worker: str = "w1", now_s: float = 0.0) -> None:
    digest, body = pack(of)
    known.observe(worker, lane, digest, now_s)
    if digest in known.missing():
        known.learn(digest, Content(unpack(body)))


@pytest.fixture
def known() -> LaneKnowledge:
    known = LaneKnowledge()
    told(known, "okx", content("okx", "BTC/USDT", "SOL/USDT", "ETH/USDT:USDT"))
    for lane in LANES[1:]:
        told(known, lane, content("kraken", "BTC/USDT", "BTC/USD", timeframes=["1m", "7m"]))
    return known


def request(symbol: Any = None, *, method: str = "fetch_ticker", **args: Any) -> Request:
    return Request(method, args | ({} if symbol is None else {"symbol": symbol}))


def able(known: LaneKnowledge, of: Request, lanes: Sequence[str] = LANES) -> list[str]:
    found = known.able(lanes, of.method, asked(of.args))
    assert not isinstance(found, Lack), found
    return list(found)


def lack(known: LaneKnowledge, of: Request, lanes: Sequence[str] = LANES) -> Lack:
    found = known.able(lanes, of.method, asked(of.args))
    assert isinstance(found, Lack), found
    return found


def test_a_content_survives_the_way() -> None:
    of = content("okx", "BTC/USDT", "ETH/USDT:USDT")
    digest, body = pack(of)
    assert unpack(body) == of
    assert pack(of) == (digest, body)
    assert pack(content("okx", "BTC/USDT"))[0] != digest


@pytest.mark.parametrize(
    ("of", "lanes"),
    [
        (request(), LANES),
        (request("BTC/USDT"), LANES),
        (request("SOL/USDT"), ("okx",)),
        (request("BTC/USD"), ("kraken", "kraken.eu")),
        (request("BTC-USD"), ("kraken", "kraken.eu")),  # an exchange's own id
        (request("XBT/USD"), ("kraken", "kraken.eu")),
        (request("ETH/USDT:USDT"), ("okx",)),
        (request("ETH/USDT"), ("okx",)),  # ccxt takes it for ETH/USDT:USDT where settings say so
        (request("BTC-251226-100000-C"), LANES),  # options that have expired are in no list
        (request(symbols=["BTC/USDT", "SOL/USDT"]), ("okx",)),
        (request(symbols=["BTC/USDT"]), LANES),
        (request(symbols=[]), LANES),
        (request(symbols=None), LANES),
        (request("BTC/USDT", timeframe="1m"), LANES),
        (request("BTC/USDT", timeframe="7m"), ("kraken", "kraken.eu")),
        (request("BTC/USDT", timeframe="1h"), ("okx",)),
        # What can be no symbol is for the worker to refuse.
        (request(""), LANES),
        (request("../time"), LANES),
        (request("x" * 257), LANES),
        (request(5), LANES),
        (request({"a": 1}), LANES),
        (request(symbols="BTC/USDT"), LANES),
        (request(symbols=[5, "NO/SUCH"]), LANES),
        (request("BTC/USDT", timeframe=5), LANES),
    ],
)
def test_which_lanes_can_take_it(known: LaneKnowledge, of: Request, lanes: Sequence[str]) -> None:
    assert able(known, of) == list(lanes)


def test_all_is_the_same_list_again(known: LaneKnowledge) -> None:
    assert known.able(LANES, "fetch_ticker", asked({"symbol": "BTC/USDT"})) is LANES


@pytest.mark.parametrize(
    ("symbol", "near"),
    [
        ("SOL/USD", "SOL/USDT"),
        ("sol/usdt", "SOL/USDT"),
        ("SOLUSDT", "SOL/USDT"),
        ("SOLL/USDT", "SOL/USDT"),
        ("BTC/EUR", "BTC/USD"),
        ("BTCUSD", "BTC/USD"),
        ("binance:SOLUSDT", "SOL/USDT"),
        ("BINANCE:SOL/USDT", "SOL/USDT"),
        ("XBTUSDT", "BTC/USDT"),
        ("xbt_usdt", "BTC/USDT"),
        ("XBT/EUR", "BTC/USD"),
        ("ETHUSDT.P", "ETH/USDT:USDT"),
        ("ETH-USDT-SWAP", "ETH/USDT:USDT"),
        ("SOL/USDT@okx", "SOL/USDT"),
        ("ZZZ/USDT", None),
        ("/" * 256, None),
    ],
)
def test_a_symbol_that_no_lane_lists_is_refused_with_what_may_be_meant(
    known: LaneKnowledge, symbol: str, near: str | None
) -> None:
    said = lack(known, request(symbol))
    assert said.code is ErrorCode.BAD_SYMBOL
    assert said.message.startswith(f"none of okx, kraken, kraken.eu lists {symbol!r}")
    assert ("they list" in said.message) == (near is not None)
    assert near is None or near in said.message


def test_a_list_that_no_single_lane_has(known: LaneKnowledge) -> None:
    said = lack(known, request(symbols=["SOL/USDT", "BTC/USD"]))
    assert (said.code, "'SOL/USDT', 'BTC/USD'" in said.message) == (ErrorCode.BAD_SYMBOL, True)


def test_a_timeframe_that_no_lane_has(known: LaneKnowledge) -> None:
    said = lack(known, request("BTC/USDT", timeframe="9m"))
    assert said.code is ErrorCode.NOT_SUPPORTED
    assert "1m, 7m, 1h" in said.message or "1m, 1h, 7m" in said.message


def test_a_lane_of_which_nothing_is_known_is_asked(known: LaneKnowledge) -> None:
    assert able(known, request("NO/SUCH"), (*LANES, "htx")) == ["htx"]
    known.observe("w1", "htx", "a content that is not here yet", 0.0)
    assert known.missing() == {"a content that is not here yet"}
    assert able(known, request("NO/SUCH"), (*LANES, "htx")) == ["htx"]


def test_a_new_listing_counts_from_the_first_worker_that_has_it(known: LaneKnowledge) -> None:
    told(known, "okx", content("okx", "BTC/USDT"), worker="w2")
    told(known, "okx", content("okx", "BTC/USDT", "NEW/USDT"), worker="w2")
    assert able(known, request("NEW/USDT")) == ["okx"]
    assert able(known, request("SOL/USDT")) == ["okx"]  # w1 has it
    told(known, "okx", content("okx", "BTC/USDT", "NEW/USDT"), worker="w1")
    lack(known, request("SOL/USDT"))


@pytest.mark.parametrize("leaves", [True, False])
def test_a_worker_that_is_gone_does_not_count(known: LaneKnowledge, leaves: bool) -> None:
    told(known, "okx", content("okx", "BTC/USDT"), worker="w2", now_s=WORKER_GONE_S + 1)
    if leaves:
        known.forget("w1", "okx")
    lack(known, request("SOL/USDT"))
    known.forget("w2", "okx")
    assert able(known, request("SOL/USDT")) == ["okx"]  # nobody knows


def test_contents_that_no_worker_reports_are_dropped(known: LaneKnowledge) -> None:
    for number in range(5):
        told(known, "okx", content("okx", f"A{number}/USDT", timeframes=[] if number else ["9m"]))
    contents = known._contents  # pyright: ignore[reportPrivateUsage]
    assert len(contents.by_digest) == 2
    assert contents.listing(["A3/USDT"]) == contents.listing(["SOL/USDT"]) == DOUBT
    assert contents.listing(["A4/USDT"]).bit_count() == 2
    assert able(known, request("A4/USDT", timeframe="9m")) == ["okx"]  # which does not say what it has


def test_many_contents_are_told_apart() -> None:
    known = LaneKnowledge()
    lanes = [f"lane{number}" for number in range(100)]
    for number, lane in enumerate(lanes):
        told(known, lane, content(lane, "BTC/USDT", f"A{number}/USDT", f"B{number % 7}/USDT"))
    assert able(known, request("BTC/USDT"), lanes) == lanes
    assert able(known, request("A77/USDT"), lanes) == ["lane77"]
    assert able(known, request(symbols=["BTC/USDT", "B3/USDT"]), lanes) == lanes[3::7]
    for lane in lanes[:50]:
        known.forget("w1", lane)
    for lane in lanes[:50]:
        told(known, lane, content(lane, "BTC/USDT", "C/USDT"))
    assert able(known, request("C/USDT"), lanes) == lanes[:50]
    lack(known, request("A7/USDT"), lanes)


def test_a_request_for_many_symbols_goes_where_none_of_them_was_refused(known: LaneKnowledge) -> None:
    known.correct("kraken", request("BTC/USD"), 0.0)
    many = request(symbols=["BTC/USDT", "BTC/USD", "XBT/USD"])
    assert able(known, many) == ["kraken.eu"]
    known.correct("kraken.eu", request("BTC/USDT"), 0.0)
    lack(known, many)


def test_a_refused_symbol_is_off_for_its_method_until_the_markets_change(known: LaneKnowledge) -> None:
    known.correct("okx", request("BTC/USDT"), 0.0)
    assert able(known, request("BTC/USDT")) == ["kraken", "kraken.eu"]
    assert able(known, request("BTC/USDT", method="fetch_trades")) == list(LANES)
    assert "for this method" in lack(known, request("BTC/USDT"), ["okx"]).message
    told(known, "okx", content("okx", "BTC/USDT"))
    assert able(known, request("BTC/USDT")) == list(LANES)


def test_a_refused_symbol_is_asked_again_later(known: LaneKnowledge) -> None:
    known.correct("okx", request("BTC/USDT"), 0.0)
    told(known, "okx", content("okx", "BTC/USDT", "SOL/USDT", "ETH/USDT:USDT"), now_s=CORRECTED_S - 1)
    assert able(known, request("BTC/USDT")) == ["kraken", "kraken.eu"]
    told(known, "okx", content("okx", "BTC/USDT", "SOL/USDT", "ETH/USDT:USDT"), now_s=CORRECTED_S)
    assert able(known, request("BTC/USDT")) == list(LANES)


@pytest.mark.parametrize(
    "of", [request("BTC/USDT", params={"type": "swap"}), request(symbols=["BTC/USDT", "SOL/USDT"]), request()]
)
def test_what_may_have_been_refused_for_something_else_is_no_correction(known: LaneKnowledge, of: Request) -> None:
    before = able(known, of)
    known.correct("okx", of, 0.0)
    assert able(known, of) == before
