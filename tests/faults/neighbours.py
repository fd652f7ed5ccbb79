"""One bad client against twenty good ones: ``python -m tests.faults.neighbours --seed 1`` (``make neighbours SEED=1``).

The bad client sends whatever `mischief` draws from the seed, four times as much as all others together. Each good
client asks one lane at a time for plain data. Every one of their requests must be answered with data, no lane may be
set aside, no service may restart or lose its connection, and no limit may be broken. The run leaves with 1 where
something was not so, and says where the logs are.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aio_pika
from msgspec import Struct, to_builtins

from schemas.runtime.results import now_ms
from tests.bench.measure import Options, met, percentile
from tests.faults.fuzz import STUMBLES, stood
from tests.faults.mischief import SAID, Message, Mischief, Traps
from tests.support.fleet import Client, Stand, set_aside

GOOD_CLIENTS: Final = 20
GOOD_PER_S: Final = 5.0
BAD_PER_S: Final = 24.0
WITHIN_MS: Final = 20_000
REQUESTS: Final = 2_000
CALLS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("fetch_ticker", {}),
    ("fetch_order_book", {"limit": 20}),
    ("fetch_trades", {"limit": 10}),
    ("fetch_ohlcv", {"timeframe": "1m", "limit": 10}),
)
SYMBOLS: Final = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT")


class Outcome(Struct, frozen=True):
    """What a run showed.

    Args:
        asked: how many requests the good clients sent.
        failed: those without data, by error code; ``none`` for those without an answer.
        examples: the message of one failed request of each code.
        took_ms: how long each answer took.
        sent: the bad client's messages, by kind.
        set_aside: lanes that stood aside or served less because of failures, and why.
        stumbles: failed handlers and lost connections in the logs, by service.
        restarts: services that are not the process they were.
        broken: limits that were broken, by exchange.
    """

    asked: int
    failed: dict[str, int]
    examples: dict[str, str]
    took_ms: list[float]
    sent: dict[str, int]
    set_aside: dict[str, int]
    stumbles: dict[str, int]
    restarts: list[str]
    broken: dict[str, Any]

    @property
    def unharmed(self) -> bool:
        """Whether the good clients were as well served as if they had been alone."""
        return not (self.failed or self.set_aside or self.stumbles or self.restarts or self.broken)


class Neighbours:
    """Twenty good clients and a bad one on a fleet that is up.

    Args:
        stand: the fleet.
        seed: what the bad client does follows from it.
        within_ms: the time that each good request has.
    """

    def __init__(self, stand: Stand, seed: int, within_ms: int = WITHIN_MS) -> None:
        self._stand = stand
        self._within_ms = within_ms
        self._seed = seed
        self._rng = random.Random(f"neighbours {seed}")
        self._read = {service.name: len(service.log.read_bytes()) for service in stand.services}
        self._pids = {service.name: service.pid for service in stand.services}
        self._failed: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._took_ms: list[float] = []
        self._sent: Counter[str] = Counter()

    async def run(self, requests: int, *, alone: bool = False) -> Outcome:
        """Lets the good clients send so many requests beside the bad one, and waits for their answers.

        Args:
            requests: how many, of all good clients together.
            alone: whether the bad client stays away, for comparison.
        """
        simulator = self._stand.simulator
        async with AsyncExitStack() as stack:
            for exchange, said in SAID.items():
                await simulator.fault(exchange, said=to_builtins(said))
                stack.push_async_callback(simulator.clear, exchange)
            clients = [
                await stack.enter_async_context(Client.on(self._stand.url, topology=False)) for _ in range(GOOD_CLIENTS)
            ]
            bad = asyncio.create_task(self._misbehave()) if not alone else None
            begun_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for number in range(requests):
                    await asyncio.sleep(max(0.0, begun_s + number / GOOD_PER_S - time.monotonic()))
                    group.create_task(self._ask(clients[number % GOOD_CLIENTS], number))
            if bad is not None:
                bad.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await bad
        services = self._stand.services
        return Outcome(
            requests,
            dict(self._failed),
            self._examples,
            self._took_ms,
            dict(self._sent),
            self._set_aside(),
            self._stumbles(),
            [one.name for one in services if not one.running or one.pid != self._pids[one.name]],
            await self._stand.broken(),
        )

    async def _ask(self, client: Client, number: int) -> None:
        lanes = self._stand.fleet.lanes
        method, args = CALLS[number % len(CALLS)]
        request = {
            "method": method,
            "args": {"symbol": SYMBOLS[number // len(CALLS) % len(SYMBOLS)], **args},
            "exchanges": [lanes[number % len(lanes)]],
            "deadline_ms": now_ms() + self._within_ms,
        }
        begun_s = time.monotonic()
        correlation_id = await client.send(request)
        try:
            answer = await client.answer(correlation_id, timeout_s=self._within_ms / 1000 + 5)
        except AssertionError:
            self._note_failed("none", str(request))
            return
        self._took_ms.append((time.monotonic() - begun_s) * 1000)
        if answer.result.error is not None:
            self._note_failed(str(answer.code), f"{request['exchanges']} {answer.result.error.message}")

    def _note_failed(self, code: str, example: str) -> None:
        self._failed[code] += 1
        self._examples.setdefault(code, example)

    async def _misbehave(self) -> None:
        async with _trapped(self._stand.url) as (channel, traps):
            mischief = Mischief(self._seed, self._stand.fleet.lanes, traps)
            begun_s = time.monotonic()
            number = 0
            while True:
                await asyncio.sleep(max(0.0, begun_s + number / BAD_PER_S - time.monotonic()))
                number += 1
                kind, message = mischief.draw()
                self._sent[kind] += 1
                await _publish(channel, message)

    def _said(self) -> dict[str, str]:
        return {
            service.name: service.log.read_bytes()[self._read[service.name] :].decode(errors="replace")
            for service in self._stand.services
        }

    def _set_aside(self) -> dict[str, int]:
        return dict(sum((set_aside(text) for text in self._said().values()), Counter[str]()))

    def _stumbles(self) -> dict[str, int]:
        counts = {
            f"{name}: {word.strip()}": text.count(word) for name, text in self._said().items() for word in STUMBLES
        }
        return {what: count for what, count in counts.items() if count}


@asynccontextmanager
async def _trapped(url: str) -> AsyncGenerator[tuple[aio_pika.abc.AbstractChannel, Traps]]:
    """The bad client's connection and queues: one is full and refuses, one is deleted before anybody answers to it."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        arguments: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
        full = await channel.declare_queue(exclusive=True, arguments=arguments)
        await channel.default_exchange.publish(aio_pika.Message(b"x"), full.name)
        gone = await channel.declare_queue(exclusive=True)
        await gone.delete()
        yield channel, Traps(full.name, gone.name)


async def _publish(channel: aio_pika.abc.AbstractChannel, message: Message) -> None:
    with contextlib.suppress(aio_pika.exceptions.DeliveryError):  # refused: that is a good answer to it
        await channel.default_exchange.publish(
            aio_pika.Message(message.body, delivery_mode=2, **message.properties), message.queue
        )


async def run(seed: int, requests: int, folder: Path, options: Options, *, alone: bool) -> bool:
    """One run on a fleet of its own, with its tables; whether the good clients were unharmed."""
    async with stood(folder, seed) as stand:
        outcome = await Neighbours(stand, seed).run(requests, alone=alone)
    table = options.table("The bad client's messages", "", "sent")
    for kind, count in sorted(outcome.sent.items()):
        table.row(kind, count)
    table = options.table(f"{GOOD_CLIENTS} good clients", "", "", "")
    with_data = outcome.asked - sum(outcome.failed.values())
    table.row("requests with data", f"{with_data:,} of {outcome.asked:,}", met(not outcome.failed))
    for part in (0.5, 0.99, 1.0):
        table.row(f"answered within, ms ({part:.0%})", percentile(outcome.took_ms, part), "")
    rows = {
        "lanes set aside": outcome.set_aside,
        "failed handlers, lost connections": outcome.stumbles,
        "restarts": outcome.restarts,
        "limits broken": outcome.broken,
    }
    for what, found in rows.items():
        table.row(what, len(found), met(not found))
    for title, found in (("failed", outcome.failed), *rows.items()):
        if found:
            print(f"{title}: {found}")
    for code, example in outcome.examples.items():
        print(f"  {code}: {example}")
    return outcome.unharmed


def main() -> int:
    """Runs `run` with what the command line says, and keeps its folder if something was not so."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.neighbours", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what the bad client does follows from it (default: 1)")
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"of the good clients (default: {REQUESTS})")
    parser.add_argument("--alone", action="store_true", help="without the bad client, for comparison")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=f"ccxt-fleet-neighbours-{words.seed}-"))
    unharmed = False
    try:
        options = Options(markdown=words.markdown)
        unharmed = asyncio.run(run(words.seed, words.requests, folder, options, alone=words.alone))
    finally:
        if unharmed:
            shutil.rmtree(folder)
        else:
            print(f"logs of seed {words.seed}: {folder}", flush=True)
    return 0 if unharmed else 1


if __name__ == "__main__":
    sys.exit(main())
