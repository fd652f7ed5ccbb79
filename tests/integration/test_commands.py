"""The commands that look at the fleet, beside a fleet at work: what they say is so."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import msgspec
import pytest
import redis.asyncio as redis_client

from deploy.servers import RabbitMQ
from schemas import topology
from schemas.config import BrokerConfig
from schemas.operator import output, shapes
from schemas.runtime.broker import Broker
from schemas.version import VERSION
from tests.support.commands import ROOT, Done, command, environment, started
from tests.support.fleet import Stand, wait_until
from tests.support.tcp_proxy import Proxy

BTC: dict[str, Any] = {"symbol": "BTC/USDT"}


async def run(stand: Stand, *words: str) -> Done:
    return await command(*words, broker_url=stand.url, redis_url=stand.redis.url)


async def test_status_names_who_is_there(stand: Stand) -> None:
    done = await run(stand, "status", "--json")
    assert done.code == output.OK, done
    view = msgspec.convert(done.json, shapes.StatusView)
    assert view.rabbitmq.version.startswith("RabbitMQ ")
    assert view.redis.version.startswith(("Redis ", "Valkey "))
    assert view.redis.since_ms is not None
    processes = {(await service.status())["process"]["name"] for service in stand.services}
    assert {each.name for each in (*view.dispatcher_processes, *view.workers)} == processes
    assert {each.version for each in (*view.dispatcher_processes, *view.workers)} == {VERSION}
    assert (view.dispatchers, len(view.workers)) == (1, 2)
    assert {each.lanes for each in view.workers} == {len(stand.fleet.lanes)}
    assert {each.name for each in view.queues} == {each.name for each in topology.queues(stand.fleet.lanes)}
    text = (await run(stand, "status")).out
    for name in processes:
        assert name in text


async def test_lanes_tell_their_state_and_why(stand: Stand) -> None:
    await stand.simulator.fault("okx", down="refused")

    async def aside() -> bool:
        await stand.client.ask("fetch_ticker", BTC, exchanges=["okx", "binance"])
        lanes = (await stand.fleet.dispatchers[0].status())["lanes"]
        return any(lane["lane"] == "okx" and lane["state"] == "offline" for lane in lanes)

    await wait_until(aside, "okx stands aside")

    async def told() -> bool:
        views = {
            each.lane: each
            for each in msgspec.convert((await run(stand, "lanes", "--json")).json, list[shapes.LaneView])
        }
        okx = views["okx"]
        return okx.state == "offline" and bool(okx.reason) and okx.share == 0.0 and views["binance"].state == "healthy"

    await wait_until(told, "the command says so")
    done = await run(stand, "lanes", "okx")
    assert done.code == output.OK
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [["okx", "offline"]]
    doctor = await run(stand, "doctor")
    assert doctor.code == output.WRONG
    assert "lane okx" in doctor.out


async def test_a_lane_that_there_is_not(stand: Stand) -> None:
    done = await run(stand, "lanes", "kucoin")
    assert done.code == output.WRONG
    assert "no lane 'kucoin'; there are: binance, " in done.err


async def test_budget_tells_what_calls_took(stand: Stand) -> None:
    for _ in range(3):
        await stand.client.ask("fetch_order_book", BTC, exchanges=["binance"])
    done = await run(stand, "budget", "binance", "--json")
    view = msgspec.convert(done.json, shapes.BudgetView)
    assert view.buckets
    for bucket in view.buckets:
        assert bucket.lane == "binance"
        assert 0 < bucket.used <= bucket.capacity == bucket.amount * bucket.effective_part
        assert bucket.window_s > 0
    assert view.pauses == []
    async with redis_client.from_url(stand.redis.url) as client:
        until_us = int((time.time() + 30) * 1e6)
        await client.set("fleet:{okx}:default:pause", f"{until_us}:0:header Retry-After|slow down", px=30_000)
    view = msgspec.convert((await run(stand, "budget", "okx", "--json")).json, shapes.BudgetView)
    assert view.pauses
    assert all(each.exchange == "okx" and each.left_s > 0 for each in view.pauses)
    printed = (await run(stand, "budget")).out
    assert "paused: {okx}:default all of it, " in printed
    assert " left by header Retry-After: slow down" in printed
    await stand.lift()


async def test_doctor_finds_nothing_wrong_with_a_fleet_that_is_well(stand: Stand) -> None:
    dead = await stand.client.channel.get_queue(topology.DEAD, ensure=False)
    await dead.purge()
    done = await run(stand, "doctor", "--json")
    view = msgspec.convert(done.json, shapes.FindingsView)
    assert [each for each in view.findings if each.level == "wrong"] == []
    assert view.ok
    assert done.code == output.OK
    looked_at = {each.about for each in view.findings}
    assert looked_at >= {
        "RabbitMQ", "exchanges", "queues", "RabbitMQ's alarms", "Redis", "Redis's memory", "Redis's disk", "clock",
        "dispatchers", "workers", "versions", "ccxt", "configuration", "lanes", "dead letters",
    }  # fmt: skip


async def test_doctor_says_what_is_wrong_in_rabbitmq(
    vhost: str, redis_url: str, admin: aio_pika.abc.AbstractChannel, rabbitmq: RabbitMQ
) -> None:
    nothing = await command("doctor", broker_url=vhost, redis_url=redis_url)
    assert nothing.code == output.WRONG
    for says in ("exchanges", "not there: fleet.requests", "none is there: requests wait", "every lane is offline"):
        assert says in nothing.out

    broker = Broker(BrokerConfig(urls=(vhost,)), "test", [])
    await broker.start()
    await broker.close()
    await admin.queue_delete(topology.RETURNED)
    await admin.declare_queue(topology.RETURNED, durable=True, arguments={"x-queue-type": "quorum", "x-max-length": 5})
    await admin.default_exchange.publish(aio_pika.Message(b"?"), topology.DEAD)
    await rabbitmq.ctl("set_vm_memory_high_watermark", "0.000001")
    try:
        done = await command("doctor", broker_url=vhost, redis_url=redis_url)
    finally:
        await rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
    assert done.code == output.WRONG
    assert "fleet.returned has other arguments: 'x-" in done.out
    assert "it is short of memory or disk space" in done.out
    assert "1 messages could not be used" in done.out
    assert "`ccxt-fleet dead list` shows them" in done.out


async def test_doctor_says_what_is_wrong_in_redis(vhost: str, redis_url: str) -> None:
    async with redis_client.from_url(redis_url) as client:
        any_client: Any = client
        await any_client.config_set("maxmemory", "100mb")
        await any_client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            done = await command("doctor", broker_url=vhost, redis_url=redis_url)
        finally:
            await any_client.config_set("maxmemory", "0")
            await any_client.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory-policy is allkeys-lru" in done.out
    assert "CONFIG SET maxmemory-policy noeviction" in done.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("status",), "it refuses our user or password"),
        (("doctor",), "it refuses our user or password"),
        (("dead", "list"), "it refuses our user or password"),
    ],
)
async def test_a_wrong_password(vhost: str, redis_url: str, words: tuple[str, ...], says: str) -> None:
    done = await command(*words, broker_url=vhost.replace("guest:guest", "guest:s3cret"), redis_url=redis_url)
    assert done.code in {output.AWAY, output.WRONG}
    assert says in done.out + done.err
    assert "s3cret" not in done.out + done.err
    assert "Traceback" not in done.err


async def test_a_virtual_host_without_a_fleet(vhost: str, redis_url: str) -> None:
    done = await command("dead", "list", broker_url=vhost, redis_url=redis_url)
    assert done.code == output.AWAY
    assert "start a dispatcher or a worker" in done.err


ENDLESS = [("top", "--json"), ("budget", "--watch"), ("budget", "--watch", "--json")]


@pytest.mark.parametrize("words", ENDLESS, ids=" ".join)
async def test_ctrl_c_ends_it_in_order(stand: Stand, words: tuple[str, ...]) -> None:
    child = await started(*words, broker_url=stand.url, redis_url=stand.redis.url)
    assert child.stdout is not None
    async with asyncio.timeout(60):
        await child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, err = await child.communicate()
    assert child.returncode == output.STOPPED
    assert b"Traceback" not in err


@pytest.mark.parametrize("words", [*ENDLESS, ("lanes", "--json"), ("status",)], ids=" ".join)
async def test_whoever_reads_it_may_stop(stand: Stand, words: tuple[str, ...]) -> None:
    line = f"{sys.executable} -m schemas {' '.join(words)} | head -1; exit ${{PIPESTATUS[0]}}"
    child = await asyncio.create_subprocess_exec(
        *("bash", "-c", line),
        cwd=ROOT,
        env=environment(stand.url, stand.redis.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await child.communicate()
    assert len(out.splitlines()) == 1
    assert err == b""
    # What is short is all in the pipe before its reader leaves.
    assert child.returncode in ({output.CLOSED} if words in ENDLESS else {output.CLOSED, output.OK})


async def test_nobody_listens_at_all(stand: Stand) -> None:
    child = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"{sys.executable} -m schemas lanes >&- 2>&-"),
        cwd=ROOT,
        env=environment(stand.url, stand.redis.url),
    )
    async with asyncio.timeout(60):
        assert await child.wait() == output.OK


@asynccontextmanager
async def terminal(
    stand: Stand, *words: str
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, Callable[[], str], int], None]:
    """A command in a terminal of 160 columns: the process, all that the terminal got, and where keys go."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 160))
    said = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, lambda: said.extend(os.read(ours, 65536)))
    env = {**environment(stand.url, stand.redis.url), "TERM": "xterm-256color"}
    env.pop("COLUMNS")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemas", *words),
        cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    try:
        yield child, lambda: said.decode(errors="replace"), ours
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)


async def test_top_in_a_terminal(stand: Stand) -> None:
    async with terminal(stand, "top") as (child, said, keys):
        await wait_until(lambda: "lane ▼" in said() and "kraken" in said(), "it shows the lanes", timeout_s=60)
        os.write(keys, b"s")
        await wait_until(lambda: "ok/s ▼" in said(), "it sorts by the rate")
        os.write(keys, b"r")
        await wait_until(lambda: "ok/s ▲" in said(), "and backwards")
        os.write(keys, b"q")
        async with asyncio.timeout(60):
            assert await child.wait() == output.OK
        assert "\x1b[?1049l" in said()  # the screen is as it was
        assert "Traceback" not in said()


async def test_no_colours_where_none_are_wanted(stand: Stand) -> None:
    async with terminal(stand, "lanes") as (child, said, _):
        async with asyncio.timeout(60):
            assert await child.wait() == output.OK
        await wait_until(lambda: "kraken" in said(), "all was read")
        assert "\x1b[" not in said()


async def test_top_for_programs_tells_rates(stand: Stand) -> None:
    child = await started("top", "--json", "--times", "3", broker_url=stand.url, redis_url=stand.redis.url)
    assert child.stdout is not None
    lines: list[bytes] = []
    while not child.stdout.at_eof():
        await stand.client.ask("fetch_ticker", BTC, exchanges=["okx"])
        lines.append(await child.stdout.readline())
    assert await child.wait() == output.OK
    last = [msgspec.json.decode(line, type=shapes.TopView) for line in lines if line][-1]
    okx = next(lane for lane in last.lanes if lane.lane == "okx")
    assert okx.ok_per_s > 0
    assert okx.latency_ms > 0
    assert okx.bucket
    assert (last.dispatchers, last.workers) == (1, 2)


async def test_top_goes_on_when_rabbitmq_is_back(proxy: Proxy, through: str, redis_url: str) -> None:
    child = await started("top", "--json", broker_url=through, redis_url=redis_url)
    assert child.stdout is not None

    async def shows(*, away: bool) -> None:
        assert child.stdout is not None
        while True:
            view = msgspec.json.decode(await child.stdout.readline(), type=shapes.TopView)
            if bool(view.rabbitmq.error) is away:
                return

    async with asyncio.timeout(90):
        await shows(away=False)
        proxy.cut()
        await shows(away=True)
        await shows(away=False)
        child.send_signal(signal.SIGINT)
        _, err = await child.communicate()
    assert child.returncode == output.STOPPED
    assert err == b""


async def test_what_others_wrote_into_the_servers_makes_no_command_fail(
    vhost: str, redis_url: str, admin: aio_pika.abc.AbstractChannel
) -> None:
    """And what they wrote gives the terminal no commands."""
    await admin.declare_queue(topology.DEAD, durable=True)
    odd: list[dict[str, Any]] = [
        {"x-death": [1]},
        {"x-death": "x"},
        {"x-death": [{"time": 5}]},
        {"x-first-death-reason": "\x9b2J"},
    ]
    for headers in odd:
        letter = aio_pika.Message(b"\x9b2J\xff", headers=headers, message_id="\x1b[2J", reply_to="\u202e")
        await admin.default_exchange.publish(letter, topology.DEAD)
    async with redis_client.from_url(redis_url) as client:
        await client.set("fleet:{okx}:1:pause", b"9" * 5000 + b":0:x|y")
        await client.set("fleet:{}:1:pause", "9999999999999999:0:x|y")
        await client.set(b"fleet:{\xff}:\x9b:pause", b"9999999999999999:0:\x9b2J|\x1b[2J")
        await client.zadd("fleet:processes", {b"\xff": 1})
    for words in (("dead", "list"), ("dead", "show", ""), ("pause", "list"), ("status",), ("doctor",), ("lanes",)):
        for options in ((), ("--json",)):
            done = await command(*words, *options, broker_url=vhost, redis_url=redis_url)
            assert "a fault of ours" not in done.err, (words, done)
            assert all(line.isprintable() for line in (done.out + done.err).split("\n")), (words, done)
