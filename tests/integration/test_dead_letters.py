"""The command line for dead letters, on a real broker: list, show, replay, drop."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractChannel

from deploy.local import Services
from deploy.servers import Redis
from deploy.simulator.process import Simulator
from schemas import topology
from schemas.config import BrokerConfig
from schemas.encodings import decode_request, is_json
from schemas.messages import (
    JSON,
    MSGPACK,
    Attempt,
    DeadLetter,
    ErrorCode,
    Request,
    encode,
)
from schemas.operator.dead import Letter, Replay
from schemas.runtime import modules
from schemas.runtime.broker import Broker
from tests.support.fleet import wait_until

REQUEST = Request(method="fetch_ticker", id="kept")
PASSED_MS = 1_700_000_000_000
TOMORROW_MS = 4_102_444_800_000
LIMIT = Attempt(
    Request(method="fetch_ticker", args={"symbol": "BTC/USDT"}, id="limit", deadline_ms=PASSED_MS),
    lane="okx",
    number=3,
    received_ms=1,
    reply_to="my.results",
    correlation_id="mine",
)


def body_of_expired() -> bytes:
    return msgspec.json.format(msgspec.json.encode(Request(method="fetch_time", id="expired", deadline_ms=TOMORROW_MS)))


@pytest.fixture
async def channel(vhost: str) -> AsyncIterator[AbstractChannel]:
    """A broker with three dead letters: garbage, an attempt that killed its workers, and one of RabbitMQ's own."""
    broker = Broker(BrokerConfig(urls=(vhost,)), "test", [])
    await broker.start()
    letters = [
        DeadLetter(ErrorCode.UNREADABLE, "not a request", topology.REQUESTS, 1_000, b"\xc1garbage"),
        DeadLetter(
            ErrorCode.DELIVERY_LIMIT,
            "its worker died 10 times",
            topology.RETURNED,
            2_000,
            encode(LIMIT),
            request_id="limit",
            attempts=3,
            reply_to="my.results",
            correlation_id="mine",
        ),
    ]
    for letter in letters:
        await broker.publish(encode(letter), topology.DEAD)
    await broker.close()
    async with await aio_pika.connect(vhost) as connection:
        channel = await connection.channel()
        message = aio_pika.Message(body_of_expired(), content_type=JSON, reply_to="my.results", expiration=0.001)
        await channel.default_exchange.publish(message, topology.REQUESTS)
        await wait_until(lambda: waiting(channel, topology.DEAD, 3), "RabbitMQ's own dead letter")
        yield channel


async def waiting(channel: AbstractChannel, queue: str, count: int) -> bool:
    declared = await channel.declare_queue(queue, passive=True)
    return declared.declaration_result.message_count == count


async def run(vhost: str, *words: str, fails: bool = False) -> str:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemas", "dead", *words, "--url", vhost),
        cwd=modules.CHECKOUT,
        env={"COLUMNS": "200", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed = (await child.communicate())[0].decode()
    assert bool(child.returncode) is fails, printed
    return printed


async def test_letters_are_listed_oldest_first_and_stay(vhost: str, channel: AbstractChannel) -> None:
    for _ in range(2):
        lines = (await run(vhost, "list")).splitlines()
        assert [line.split()[3] for line in lines[1:4]] == ["unreadable", "delivery_limit", "expired"]
        assert lines[2].split()[4:7] == ["fleet.returned", "limit", "3"]
        assert lines[3].split()[4:6] == ["fleet.requests", "expired"]
        assert lines[4] == "3 dead letters"
    assert "1 dead letters" in await run(vhost, "list", "--reason", "expired")
    assert "1 dead letters" in await run(vhost, "list", "--origin", "fleet.returned")
    assert "2 dead letters" in await run(vhost, "list", "--older-than-s", "1000000")
    assert await waiting(channel, topology.DEAD, 3)


async def test_what_is_in_a_letter_is_shown_as_it_is_and_does_nothing(vhost: str, channel: AbstractChannel) -> None:
    odd, never_ms = "[/x] :heart: \x1b[2J\u202e\ndropped", 2**62
    letter = DeadLetter(ErrorCode.UNREADABLE, odd, topology.REQUESTS, never_ms, b"\x1b", request_id=odd, reply_to=odd)
    await channel.default_exchange.publish(aio_pika.Message(encode(letter)), topology.DEAD)
    await wait_until(lambda: waiting(channel, topology.DEAD, 4), "it lies there")
    listed = await run(vhost, "list", "--request", odd)
    shown = await run(vhost, "show", listed.splitlines()[1].split()[0])
    dropped = await run(vhost, "drop", "--request", odd)
    for printed in (listed, shown, dropped):
        assert r"[/x] :heart: \x1b[2J\u202e\ndropped" in printed
    for printed in (listed, shown):
        assert f"{never_ms} ms" in printed


@pytest.mark.usefixtures("channel")
async def test_a_letter_is_shown_with_the_request_in_it(vhost: str) -> None:
    key = (await run(vhost, "list", "--request", "limit")).splitlines()[1].split()[0]
    shown = await run(vhost, "show", key[:8])
    assert "its worker died 10 times" in shown
    assert json.loads(shown[shown.index("{") :])["request"]["args"] == {"symbol": "BTC/USDT"}
    await run(vhost, "show", "no-such-key", fails=True)


async def test_a_replayed_request_starts_afresh(vhost: str, channel: AbstractChannel) -> None:
    assert "to replay" in await run(vhost, "replay", "--all", "--dry-run")
    assert await waiting(channel, topology.DEAD, 3)
    printed = await run(vhost, "replay", "--all")
    assert printed.count("replayed") == 2
    assert printed.count("not readable, stays") == 1
    assert await waiting(channel, topology.DEAD, 1)
    requests = await channel.get_queue(topology.REQUESTS, ensure=False)
    first, second = await requests.get(no_ack=True), await requests.get(no_ack=True)
    # Its attempts count no more, and a deadline that passed is none; the answer goes where it was to go.
    fresh = msgspec.json.decode(first.body, type=Request)
    assert fresh == msgspec.structs.replace(LIMIT.request, deadline_ms=None)
    assert (first.reply_to, first.correlation_id, first.content_type) == ("my.results", "mine", JSON)
    again = msgspec.json.decode(second.body, type=Request)
    assert second.body == body_of_expired()
    assert (again.id, again.deadline_ms, second.reply_to) == ("expired", TOMORROW_MS, "my.results")


async def test_letters_are_dropped_by_key_or_filter_and_never_without_one(vhost: str, channel: AbstractChannel) -> None:
    assert "select letters" in await run(vhost, "drop", fails=True)
    assert "to drop" in await run(vhost, "drop", "--reason", "unreadable", "--dry-run")
    assert await waiting(channel, topology.DEAD, 3)
    assert "dropped" in await run(vhost, "drop", "--reason", "unreadable")
    assert await waiting(channel, topology.DEAD, 2)
    await run(vhost, "drop", "--all")
    assert await waiting(channel, topology.DEAD, 0)


@pytest.fixture
async def many(vhost: str) -> list[str]:
    """The ids of more letters than a pipe takes lines of, oldest first."""
    broker = Broker(BrokerConfig(urls=(vhost,)), "test", [])
    await broker.start()
    ids = [f"id{number:04}" for number in range(1200)]
    for request_id in ids:
        letter = DeadLetter(ErrorCode.UNREADABLE, "x", topology.REQUESTS, 1_000, request_id.encode(), request_id)
        await broker.publish(encode(letter), topology.DEAD)
    await broker.close()
    return ids


def ids_in(printed: str) -> list[str]:
    return re.findall(r"id[0-9]{4}", printed)


async def test_commands_at_the_same_time_see_all_letters_in_order(vhost: str, many: list[str]) -> None:
    first, second, shown = await asyncio.gather(
        run(vhost, "list"), run(vhost, "list"), run(vhost, "list", "--limit", "1")
    )
    assert ids_in(first) == ids_in(second) == many
    key = shown.splitlines()[-2].split()[0]
    assert "waiting" in first + second + shown
    listed, found = await asyncio.gather(run(vhost, "list"), run(vhost, "show", key))
    assert ids_in(listed) == many
    assert many[0] in found


async def test_letters_are_listed_page_by_page(vhost: str, many: list[str]) -> None:
    seen, after = list[str](), list[str]()
    while len(seen) < len(many):
        printed = await run(vhost, "list", "--limit", "500", *after)
        seen += ids_in(printed)
        after = ["--after", printed.split("--after ")[1].strip()] if "--after" in printed else []
    assert seen == many
    assert (await run(vhost, "drop", "--all", "--limit", "3")).count("dropped") == 3
    assert ids_in(await run(vhost, "list", "--limit", "2")) == many[3:5]


async def test_a_list_that_is_killed_hides_nothing(vhost: str, many: list[str]) -> None:
    # Nobody reads what it prints, so that it stops in the middle.
    words = (sys.executable, "-m", "schemas", "dead", "list", "--url", vhost)
    held = await asyncio.create_subprocess_exec(
        *words, cwd=modules.CHECKOUT, stdout=asyncio.subprocess.PIPE, limit=1024
    )
    assert held.stdout
    assert b"id0000" in await held.stdout.readline() + await held.stdout.readline()
    other = asyncio.create_subprocess_exec(
        *words, cwd=modules.CHECKOUT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    waiter = await other
    assert waiter.stderr
    assert b"waiting" in await waiter.stderr.readline()
    held.kill()
    await held.communicate()
    printed, _ = await waiter.communicate()
    assert sorted(ids_in(printed.decode())) == many


@pytest.mark.parametrize("words", [["list"], ["replay", "--all"], ["drop", "--all"], ["show", "abc"]])
async def test_what_finds_nothing_says_so_and_fails(vhost: str, words: list[str]) -> None:
    broker = Broker(BrokerConfig(urls=(vhost,)), "test", [])
    await broker.start()
    await broker.close()
    assert "dead letter" in (await run(vhost, *words, fails=True)).splitlines()[-1]


BODIES = {
    "JSON": (JSON, msgspec.json.encode(REQUEST)),
    "JSON of a kind": ("application/vnd.mine+json; charset=utf-8", b' {"method": "fetch_ticker", "id":"kept"}'),
    "JSON that says nothing": ("", b'\n  {"id":"kept","method":"fetch_ticker" }'),
    "MessagePack": (MSGPACK, msgspec.msgpack.encode(REQUEST)),
    "MessagePack of a kind": ("application/x-msgpack", msgspec.msgpack.encode(REQUEST)),
    "MessagePack that says nothing": ("", msgspec.msgpack.encode(REQUEST)),
    "MessagePack as bytes": ("application/octet-stream", msgspec.msgpack.encode(REQUEST)),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("origin", [topology.REQUESTS, topology.BULK_REQUESTS])
def test_a_request_is_replayed_as_it_was_published(kind: str, origin: str) -> None:
    content_type, body = BODIES[kind]
    letter = Letter("", "expired", "", origin, 0, "kept", None, body, content_type, "my.results", "mine")
    assert letter.replay() == Replay(origin, body, content_type, "my.results", "mine", "kept")
    # Only what is to change is written anew, in the encoding that its reader will expect.
    late = msgspec.structs.replace(REQUEST, deadline_ms=PASSED_MS)
    body = encode(late, JSON if is_json(content_type, body) else MSGPACK)
    again = msgspec.structs.replace(letter, body=body).replay()
    assert again is not None
    assert again.content_type == content_type
    assert decode_request(again.content_type, again.body) == REQUEST


def test_a_bulk_request_is_replayed_as_a_bulk_request() -> None:
    attempt = Attempt(Request(method="fetch_time", deadline_ms=TOMORROW_MS, priority="bulk"), "okx", 1, 1)
    letter = Letter("", "delivery_limit", "", topology.RETURNED, 0, "", 1, encode(attempt), "", "", "")
    again = letter.replay()
    assert again is not None
    assert (again.exchange, again.content_type) == (topology.BULK_REQUESTS, JSON)


async def test_no_broker_is_an_error_that_says_so(unused_tcp_port: int) -> None:
    assert "RabbitMQ" in await run(f"amqp://127.0.0.1:{unused_tcp_port}/", "list", fails=True)


async def test_what_a_fleet_and_people_put_there_is_listed(
    shared_fleet: tuple[str, Redis, Simulator, Services],
) -> None:
    url, _, _, fleet = shared_fleet  # without a client of the test's own: it would take the dead letters
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        dead = await channel.get_queue(topology.DEAD, ensure=False)
        await dead.purge()
        await channel.default_exchange.publish(aio_pika.Message(b"by hand", message_id="by-hand"), topology.DEAD)
        for queue in (topology.REQUESTS, topology.work_name(fleet.lanes[0], bulk=False)):
            await channel.default_exchange.publish(aio_pika.Message(b"hello", message_id="mine"), routing_key=queue)
        await wait_until(lambda: waiting(channel, topology.DEAD, 3), "all lie there")
        printed = await run(url, "list")
        assert re.search(r"unknown +by-hand +7\n", printed)
        assert re.search(r"unreadable +fleet.requests +mine +0 +5 +not a request", printed)
        assert re.search(r"unreadable +fleet.work.* +mine +0 +5 +not an attempt", printed)
        await wait_until(lambda: waiting(channel, topology.DEAD, 3), "they lie there still")
        await dead.purge()
