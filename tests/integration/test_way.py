"""A message's way through the whole fleet: every form of request is answered, whatever the exchanges do."""

import asyncio
import itertools
import time
from typing import Any

import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage

from schemas.messages import ErrorCode, Outcome, Result
from tests.support.fleet import Stand, wait_until

TICKER: dict[str, Any] = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}}
BTC = {"symbol": "BTC/USDT"}
# A symbol that lanes have refused is known from that, whatever they list: each is asked for once in all tests.
NUMBERS = itertools.count()
JSON, MSGPACK = "application/json", "application/msgpack"
# Each takes a lane down in a way of its own.
FAULTS: dict[str, dict[str, object]] = {
    "refused": {"down": "refused"},
    "reset": {"down": "reset"},
    "hang": {"hang": True},
    "errors": {"error_rate": 1.0},
    "html": {"garbage": "html"},
    "truncated": {"garbage": "truncated"},
    "empty": {"garbage": "empty"},
    "redirect": {"garbage": "redirect"},
    "maintenance": {"maintenance": True},
}


@pytest.mark.parametrize(
    ("encode", "content_type", "answered_in"),
    [
        (msgspec.json.encode, JSON, JSON),
        (msgspec.json.encode, "application/json; charset=utf-8", JSON),
        (msgspec.json.encode, None, JSON),
        (msgspec.json.encode, "text/plain", JSON),
        (msgspec.msgpack.encode, MSGPACK, MSGPACK),
        (msgspec.msgpack.encode, "application/x-msgpack", MSGPACK),
        (msgspec.msgpack.encode, None, MSGPACK),
    ],
)
async def test_the_answer_speaks_the_request_s_encoding(
    stand: Stand, encode: Any, content_type: str | None, answered_in: str
) -> None:
    sent = await stand.client.send(encode(TICKER), content_type=content_type, message_id="m1")
    answer = await stand.client.answer(sent)
    assert answer.result.ok, answer
    assert answer.content_type == answered_in
    assert answer.result.data["symbol"] == "BTC/USDT"


async def test_the_result_says_who_answered_what_and_when(stand: Stand) -> None:
    before_ms = time.time() * 1000
    answer = await stand.client.ask("fetch_ticker", BTC, id="mine", exchanges=["okx"])
    result = answer.result
    assert (result.id, result.ok, result.method, result.error) == ("mine", True, "fetch_ticker", None)
    assert (result.exchange, result.lane) == ("okx", "okx")
    assert [(item.lane, item.outcome, item.code) for item in result.attempts] == [("okx", Outcome.OK, None)]
    assert result.attempts[0].exchange_ms > 0
    assert before_ms - 1 <= result.received_ms <= result.completed_ms <= time.time() * 1000 + 1


async def test_the_id_is_the_body_s_else_the_message_s_else_made(stand: Stand) -> None:
    client = stand.client
    named = await client.answer(await client.send({**TICKER, "id": "body"}, message_id="message"))
    assert named.result.id == "body"
    from_message = await client.answer(await client.send(TICKER, message_id="message"))
    assert from_message.result.id == "message"
    made = [(await client.answer(await client.send(TICKER))).result.id for _ in range(2)]
    assert all(made)
    assert made[0] != made[1]


async def test_without_a_correlation_id_the_result_carries_the_id_in_its_place(stand: Stand) -> None:
    await stand.client.send({**TICKER, "id": "only this"}, correlation_id=None)
    answer = await stand.client.answer("only this")
    assert answer.result.id == "only this"


@pytest.mark.parametrize("reply_to", [None, "", "no.such.queue"])
async def test_without_an_address_it_goes_to_the_results_under_its_key(stand: Stand, reply_to: str | None) -> None:
    sent = await stand.client.send({**TICKER, "exchanges": ["kraken"]}, reply_to=reply_to)
    answer = await stand.client.answer(sent)
    assert answer.result.ok, answer
    assert answer.key == "kraken.fetch_ticker.ok"
    refused = await stand.client.answer(await stand.client.send({"method": "create_order"}, reply_to=reply_to))
    assert refused.key == "none.invalid.error"


async def test_results_stay_in_the_queue_for_later_readers(stand: Stand) -> None:
    sent = await stand.client.send(TICKER, reply_to=None)
    await stand.client.answer(sent)
    queue = await stand.client.channel.get_queue("fleet.results", ensure=False)

    async def one_is_ours() -> bool:
        while message := await queue.get(no_ack=True, fail=False):  # those of the tests before come first
            if message.correlation_id == sent:
                return True
        return False

    await wait_until(one_is_ours, "the result lies in fleet.results")


async def test_direct_reply_to_is_answered_once(stand: Stand) -> None:
    got: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    direct = await stand.client.channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
    await direct.consume(got.put, no_ack=True)
    await stand.client.send(TICKER, reply_to="amq.rabbitmq.reply-to", correlation_id="direct")
    message = await asyncio.wait_for(got.get(), 30)
    assert message.correlation_id == "direct"
    assert msgspec.json.decode(message.body, type=Result).ok
    # It must not have been taken for unroutable and published again.
    await stand.client.ask("fetch_ticker", BTC)
    assert got.empty()
    assert "direct" not in stand.client.answers


async def test_bulk_requests_are_answered_too(stand: Stand) -> None:
    answer = await stand.client.ask("fetch_ohlcv", {**BTC, "timeframe": "1m", "limit": 5}, priority="bulk")
    assert answer.result.ok, answer
    assert len(answer.result.data) == 5


async def test_many_at_once_are_answered_once_each(stand: Stand) -> None:
    client = stand.client
    sent = await asyncio.gather(*(client.send({**TICKER, "id": f"n{number}"}) for number in range(60)))
    answers = [await client.answer(one) for one in sent]
    assert all(answer.result.ok for answer in answers), [answer for answer in answers if not answer.result.ok][:3]
    assert {answer.result.id for answer in answers} == {f"n{number}" for number in range(60)}
    assert all(len(client.answers[one]) == 1 for one in sent)
    assert len({answer.result.lane for answer in answers}) > 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_another_exchange_answers_for_one_that_is_ill(stand: Stand, fault: str) -> None:
    await stand.simulator.fault("okx", **FAULTS[fault])
    order: dict[str, Any] = {"exchanges": ["okx", "htx"], "strategy": "failover"}

    async def okx_failed_and_htx_answered() -> bool:
        answer = await stand.client.ask("fetch_ticker", BTC, **order)
        assert (answer.result.ok, answer.result.lane) == (True, "htx"), answer
        *before, last = answer.result.attempts
        assert (last.lane, last.outcome) == ("htx", Outcome.OK)
        return any((item.lane, item.outcome) == ("okx", Outcome.FAILED) and item.message for item in before)

    # While okx is offline a request goes to htx at once; every now and then one tries it.
    await wait_until(okx_failed_and_htx_answered, "a request fails at okx and is answered by htx")
    sent = [await stand.client.send({**TICKER, **order}) for _ in range(8)]
    assert {(await stand.client.answer(one)).result.lane for one in sent} == {"htx"}


async def test_pinned_requests_wait_for_their_exchange_and_the_lane_goes_and_comes_back(stand: Stand) -> None:
    await stand.simulator.fault("okx", down="refused")
    sent = [await stand.client.send({**TICKER, "exchanges": ["okx"]}) for _ in range(10)]

    async def offline() -> bool:
        return not await stand.healthy("okx")

    await wait_until(offline, "okx is offline")
    assert not any(stand.client.answers[one] for one in sent)
    await stand.simulator.clear("okx")
    answers = [await stand.client.answer(one) for one in sent]
    assert all(answer.result.ok for answer in answers), [answer for answer in answers if not answer.result.ok][:3]
    await wait_until(lambda: stand.healthy("okx"), "okx is healthy again")


async def test_a_pinned_request_alone_outlasts_its_exchange_s_fault(stand: Stand) -> None:
    """It fails, rests and fails again until the exchange is back. The result lists every attempt."""
    counter = ("fleet_attempts_returned_total", "exchange_unavailable", "okx")  # its labels by their names
    before = await stand.metric(stand.fleet.dispatchers, *counter)
    await stand.simulator.fault("okx", down="refused")
    # Its rests grow, and trials of a lane that stands aside grow apart: how long four take is not the matter here, but
    # that they come before its deadline.
    within_s = 300
    deadline_ms = int((time.time() + within_s) * 1000)
    sent = await stand.client.send({**TICKER, "exchanges": ["okx"], "deadline_ms": deadline_ms})

    async def failed_four_times() -> bool:
        return await stand.metric(stand.fleet.dispatchers, *counter) >= before + 4

    await wait_until(failed_four_times, "it failed four times", timeout_s=within_s)
    await stand.simulator.clear("okx")
    result = (await stand.client.answer(sent)).result
    assert result.ok, result
    assert len(result.attempts) > 4
    assert {(item.lane, item.outcome) for item in result.attempts[:-1]} == {("okx", Outcome.FAILED)}


async def known(stand: Stand) -> None:
    """Returns when the dispatcher knows what all lanes list; just after a start it knows their methods alone."""

    async def nobody_is_asked() -> bool:
        symbol = f"NO{next(NUMBERS)}/SUCH"
        return not (await stand.client.ask("fetch_ticker", {"symbol": symbol})).result.attempts

    await wait_until(nobody_is_asked, "the dispatcher knows what the lanes list")


async def test_a_symbol_that_one_exchange_lacks_is_asked_of_another(stand: Stand) -> None:
    await known(stand)
    order: dict[str, Any] = {"exchanges": ["binance", "coinbase"], "strategy": "failover"}
    result = (await stand.client.ask("fetch_ticker", {"symbol": "BTC/USD"}, **order)).result
    assert result.ok, result
    assert {item.lane for item in result.attempts} == {"coinbase"}  # Binance does not list it


@pytest.mark.parametrize("name", ["BTCUSD", "btc/usdt", "BTC/USDTT"])
async def test_a_symbol_that_no_lane_lists_is_refused_at_once_with_what_may_be_meant(stand: Stand, name: str) -> None:
    await known(stand)
    answer = await stand.client.ask("fetch_ticker", {"symbol": name}, exchanges=["coinbase", "kraken"])
    assert answer.code == ErrorCode.BAD_SYMBOL
    assert not answer.result.attempts
    assert answer.result.error
    assert f"lists {name!r}" in answer.result.error.message
    assert "BTC/USD" in answer.result.error.message


async def test_an_exchange_s_own_name_is_taken_where_it_is_one(stand: Stand) -> None:
    await known(stand)
    # Not HTX: there it is the name of a swap.
    exchanges = ["binance", "kraken", "okx", "coinbase"]
    result = (await stand.client.ask("fetch_ticker", {"symbol": "BTC-USDT"}, exchanges=exchanges)).result
    assert result.ok, result
    assert {item.lane for item in result.attempts} <= {"okx", "coinbase"}
    assert result.data["symbol"] == "BTC/USDT"


async def test_a_timeframe_goes_where_there_is_one(stand: Stand) -> None:
    await known(stand)
    args = {**BTC, "timeframe": "3m", "limit": 2}  # not at Kraken, nor at Coinbase
    result = (await stand.client.ask("fetch_ohlcv", args, exchanges=["kraken", "coinbase", "okx"])).result
    assert result.ok, result
    assert {item.lane for item in result.attempts} == {"okx"}
    answer = await stand.client.ask("fetch_ohlcv", args, exchanges=["kraken", "coinbase"])
    assert answer.code == ErrorCode.NOT_SUPPORTED
    assert not answer.result.attempts


async def test_all_exchanges_answer_a_request_to_all(stand: Stand) -> None:
    sent = await stand.client.send({**TICKER, "id": "all", "exchanges": ["okx", "kraken"], "exchanges_mode": "all"})
    await wait_until(lambda: len(stand.client.answers[sent]) == 2, "both have answered")
    results = [answer.result for answer in stand.client.answers[sent]]
    assert {result.exchange for result in results} == {"okx", "kraken"}
    assert {(result.id, result.ok, result.results) for result in results} == {("all", True, 2)}


async def test_an_exchange_that_can_t_answer_a_request_to_all_says_so(stand: Stand) -> None:
    await stand.simulator.fault("okx", down="refused")
    deadline_ms = int(time.time() * 1000) + 3_000
    request = {**TICKER, "exchanges": ["okx", "binance"], "exchanges_mode": "all", "deadline_ms": deadline_ms}
    sent = await stand.client.send(request)
    await wait_until(lambda: len(stand.client.answers[sent]) == 2, "both have answered")
    answers = {answer.result.exchange: answer for answer in stand.client.answers[sent]}
    assert answers["binance"].result.ok
    assert answers["okx"].code in {ErrorCode.DEADLINE_EXCEEDED, ErrorCode.ATTEMPTS_EXHAUSTED}


async def test_when_all_are_down_the_deadline_ends_it(stand: Stand) -> None:
    for exchange in stand.simulator.urls:
        await stand.simulator.fault(exchange, down="refused")
    deadline_ms = int(time.time() * 1000) + 3_000
    sent = [await stand.client.send({**TICKER, "deadline_ms": deadline_ms}) for _ in range(10)]
    answers = [await stand.client.answer(one) for one in sent]
    assert {answer.code for answer in answers} <= {ErrorCode.DEADLINE_EXCEEDED, ErrorCode.ATTEMPTS_EXHAUSTED}
    assert all(answer.result.error and answer.result.error.message for answer in answers)
    # The promise: an error by the deadline. The tolerance is for a busy machine, not part of it.
    assert max(answer.result.completed_ms for answer in answers) < deadline_ms + 2_000


async def test_an_attempt_that_hangs_ends_with_its_deadline(stand: Stand) -> None:
    await stand.simulator.fault("okx", hang=True)
    deadline_ms = int(time.time() * 1000) + 1_000
    answer = await stand.client.ask("fetch_ticker", BTC, exchanges=["okx"], deadline_ms=deadline_ms)
    assert answer.code == ErrorCode.DEADLINE_EXCEEDED
    assert answer.result.completed_ms < deadline_ms + 2_000
