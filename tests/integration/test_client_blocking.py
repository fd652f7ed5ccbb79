"""The blocking twin: within a running loop, from threads, interrupted, forgotten, forked, closed."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import aio_pika
import pytest

from schemas import Answer, Closed, FleetSync, Request
from schemas.client.errors import BadSymbol
from tests.support.answering import DATA, answering, result
from tests.support.fleet import Stand, wait_until

ROOT = Path(__file__).resolve().parents[2]


def times(number: int) -> list[Request]:
    return [Request("fetch_time", id=f"time-{os.getpid()}-{each}") for each in range(number)]


async def test_blocking_within_a_running_loop(stand: Stand) -> None:
    with FleetSync(stand.url) as fleet:
        assert fleet.fetch_ticker("BTC/USDT", exchanges="okx")["last"]
        assert set(fleet.fetch_time(exchanges=["okx", "kraken"], mode="all")) == {"okx", "kraken"}
        assert fleet.request("fetch_time", exchanges="okx").exchange == "okx"
        answers: list[Answer] = list(fleet.map(times(20), concurrency=5))
        assert {answer.request.id for answer in answers} == {request.id for request in times(20)}
        with pytest.raises(BadSymbol):
            fleet.fetch_ticker("NO/SUCH", exchanges="okx")
        results = fleet.results("okx.fetch_time.ok")
        await stand.client.send({"method": "fetch_time", "exchanges": ["okx"]}, reply_to=None)
        assert (await asyncio.to_thread(next, results)).exchange == "okx"
    with pytest.raises(Closed, match="closed"):
        fleet.fetch_time()


async def test_blocking_is_open_from_its_first_call_to_its_end(stand: Stand) -> None:
    fleet = FleetSync(stand.url)
    assert "ccxt-fleet" not in {thread.name for thread in threading.enumerate()}
    assert await asyncio.to_thread(fleet.fetch_time, exchanges="okx")
    assert "ccxt-fleet" in {thread.name for thread in threading.enumerate()}
    del fleet  # the thread that called it may hold it for a moment longer
    await wait_until(lambda: "ccxt-fleet" not in {each.name for each in threading.enumerate()}, "its thread has ended")


INTERRUPTED = """
import os, signal, threading
from datetime import timedelta
from schemas import FleetSync

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
fleet = FleetSync()
fleet.results("#")
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    fleet.fetch_ticker("BTC/USDT", deadline=timedelta(hours=1))
except KeyboardInterrupt:
    print("interrupted")
"""
FORKED = """
import os
from schemas import Closed, FleetSync

fleet = FleetSync()
fleet.fetch_time(exchanges="okx")
child = os.fork()
if not child:
    try:
        fleet.fetch_time()
    except Closed as error:
        print("fork" in str(error), flush=True)
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert fleet.fetch_time(exchanges="okx")
print("and on")
"""


SILENT = """
import os, signal, socket, threading
from schemas import FleetSync

signal.signal(signal.SIGINT, signal.default_int_handler)
with socket.create_server(("127.0.0.1", 0)) as server:
    fleet = FleetSync(f"amqp://127.0.0.1:{server.getsockname()[1]}/")
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        fleet.fetch_time()
    except KeyboardInterrupt:
        print("interrupted", [each.name for each in threading.enumerate()])
"""
# The collector may find a stream in any thread: here in the one that would have to close it.
COLLECTED = """
import gc, threading
from collections.abc import Mapping
from schemas import FleetSync

class Collects(Mapping):
    def __len__(self): return 1
    def __getitem__(self, name): return 1
    def __iter__(self):
        print(threading.current_thread().name, gc.collect() > 0)
        return iter("a")

gc.disable()
fleet = FleetSync()
stream = fleet.results()
print(next(stream).data)
circle = [stream]
circle.append(circle)
del circle, stream
print(fleet.fetch_ticker("BTC/USDT", Collects()))
"""


def printed(program: str, url: str) -> str:
    done = subprocess.run(
        # -X dev would also write down what takes long. Since 3.12 Python warns of every fork beside a thread.
        [sys.executable, "-W", "default", "-W", "ignore:This process:DeprecationWarning", "-c", program],
        cwd=ROOT,
        env={**os.environ, "FLEET_BROKER_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def test_ctrl_c_ends_a_blocking_call(vhost: str, admin: aio_pika.abc.AbstractChannel) -> None:
    for name in ("fleet.requests", "fleet.results"):
        kind = "fanout" if name == "fleet.requests" else "topic"
        exchange = await admin.declare_exchange(name, kind, durable=True)
        await (await admin.declare_queue(name, durable=True)).bind(exchange, "#")
    assert await asyncio.to_thread(printed, INTERRUPTED, vhost) == "interrupted\n"


async def test_a_fork_is_told(stand: Stand) -> None:
    assert await asyncio.to_thread(printed, FORKED, stand.url) == "True\nand on\n"


async def test_ctrl_c_while_it_connects_leaves_nothing_behind(vhost: str) -> None:
    assert await asyncio.to_thread(printed, SILENT, vhost) == "interrupted ['MainThread']\n"


async def test_a_stream_that_is_forgotten_is_closed_in_any_thread(vhost: str) -> None:
    async with answering(vhost) as channel:
        running = asyncio.create_task(asyncio.to_thread(printed, COLLECTED, vhost))
        exchange = await channel.get_exchange("fleet.results")
        while not running.done():
            await exchange.publish(result("first"), "okx.fetch_time.ok")
            await asyncio.wait([running], timeout=0.1)
    assert await running == f"{DATA}\nccxt-fleet True\n{DATA}\n"


async def test_whoever_calls_while_it_is_closed_hears_so(vhost: str) -> None:
    """From many threads; none waits for ever."""

    def call(fleet: FleetSync, said: list[str]) -> None:
        try:
            while True:
                fleet.fetch_time()
        except Closed as error:
            said.append(str(error))

    async with answering(vhost):
        for _ in range(5):
            fleet, said = await asyncio.to_thread(FleetSync(vhost).__enter__), list[str]()
            calls = [asyncio.create_task(asyncio.to_thread(call, fleet, said)) for _ in range(5)]
            await asyncio.to_thread(fleet.fetch_time)
            await asyncio.to_thread(fleet.close)
            await asyncio.wait_for(asyncio.gather(*calls), 30)
            assert len(said) == 5
