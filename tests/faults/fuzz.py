"""Bad input at volume: ``python -m tests.faults.fuzz --seed 1`` (``make fuzz SEED=1``).

Inputs drawn from a seed (see `inputs`) go to every place that takes any: requests in both encodings, work queues,
returned attempts, reports, dead letters sent again, and the configuration's file. Each request must be answered or lie
in `fleet.dead`, no handler may fail, no connection and no process may end, and all memory must stay flat. The run
leaves with 1 where something was not so, and says where the logs are.
"""

import argparse
import asyncio
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from aio_pika.abc import AbstractIncomingMessage
from msgspec import Struct

from deploy.local import Services, simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from schemas import topology
from schemas.config import parse
from schemas.errors import ConfigError
from schemas.messages import JSON, MSGPACK, Attempt, DeadLetter, decode_attempt
from schemas.operator.dead import Letter
from schemas.runtime import properties
from tests.bench.measure import Options, met, resident_mib
from tests.faults.inputs import Inputs
from tests.support.fleet import QUICK, Client, Stand, opened, wait_until

properties.read_leniently()

INPUTS: Final = 100_000
AT_ONCE: Final = 400
# Marks of what was answered stay in Redis for two minutes: only a run of twice that shows whether anything else grows.
PER_S: Final = 350.0
SAMPLE_EVERY_S: Final = 1.0
# The longest deadline of any input that names none, with what a queue may hold up.
SETTLED_WITHIN_S: Final = 90.0
# What the allocator may keep beyond the middle of the run.
GROWTH: Final = 0.05
GROWTH_MIB: Final = 4.0
# What a log says of a message that its handler could not deal with, and of a connection that was lost.
STUMBLES: Final = ("handler_failed", "handler_cancelled", "message_requeued", "Traceback", " connected ")

CONFIGURATIONS: Final = "configurations"
REPORTS: Final = "reports"
LETTERS: Final = "dead letters sent again"
# Parts of all inputs.
KINDS: Final[Mapping[str, float]] = {
    "requests in JSON": 0.30,
    "requests in MessagePack": 0.24,
    "attempts in work queues": 0.12,
    "attempts that come back": 0.12,
    REPORTS: 0.10,
    LETTERS: 0.02,
    CONFIGURATIONS: 0.10,
}


class Tally(Struct):
    """What became of the inputs of one kind."""

    inputs: int = 0
    answered: int = 0
    buried: int = 0
    taken: int = 0
    lost: int = 0


class Outcome(Struct, frozen=True):
    """What a run showed.

    Args:
        kinds: what became of each kind; `taken` are those that need no answer.
        lost: what was neither answered nor buried, by token.
        stumbles: what the logs say of failed handlers and lost connections, by service.
        restarts: services that are not the process they were.
        memory_mib: every second, by process.
        seconds: how long the inputs took.
    """

    kinds: dict[str, Tally]
    lost: dict[str, bytes]
    stumbles: dict[str, int]
    restarts: list[str]
    memory_mib: dict[str, list[float]]
    seconds: float

    def flat(self) -> dict[str, bool]:
        """Whether each process holds at the end what it held in the middle."""
        return {
            name: _end(held) <= max(_middle(held) * (1 + GROWTH), _middle(held) + GROWTH_MIB)
            for name, held in self.memory_mib.items()
        }

    @property
    def digested(self) -> bool:
        """Whether all was answered or buried, and nothing stumbled."""
        return not (self.lost or self.stumbles or self.restarts)


class Run:
    """One run against a fleet that is up."""

    def __init__(self, stand: Stand, seed: int) -> None:
        self._stand, self._client = stand, stand.client
        self._rng = random.Random(f"run {seed}")
        self._inputs = Inputs(seed, stand.fleet.lanes)
        self._kinds: dict[str, Tally] = {}
        self._open: dict[str, tuple[str, bytes]] = {}
        self._pids = {service.name: service.pid for service in stand.services}
        self._read = {service.name: len(service.log.read_bytes()) for service in stand.services}
        self._memory_mib: dict[str, list[float]] = {}

    async def all(self, inputs: int) -> Outcome:
        """Puts so many inputs in, and waits until each has come to its end."""
        kinds = [kind for kind, part in KINDS.items() for _ in range(round(inputs * part))]
        self._rng.shuffle(kinds)
        begun_s = time.monotonic()
        letters_queue = await self._client.channel.declare_queue(exclusive=True)
        sampling = asyncio.create_task(self._sample())
        try:
            for start in range(0, len(kinds), AT_ONCE // 4):
                await asyncio.sleep(max(0.0, begun_s + start / PER_S - time.monotonic()))
                await wait_until(self._has_room, "room for more", timeout_s=SETTLED_WITHIN_S)
                await asyncio.gather(
                    *(
                        self._put(f"fuzz-{number}", kind, letters_queue.name)
                        for number, kind in enumerate(kinds[start : start + AT_ONCE // 4], start)
                    )
                )
                while letter := await letters_queue.get(fail=False, no_ack=True):
                    await self._replay(letter)
            await self._settled()
        finally:
            sampling.cancel()
        return Outcome(
            self._kinds,
            {token: body for token, (_, body) in self._open.items()},
            self._stumbles(),
            [one.name for one in self._stand.services if not one.running or one.pid != self._pids[one.name]],
            self._memory_mib,
            time.monotonic() - begun_s,
        )

    async def _put(self, token: str, kind: str, letters: str) -> None:
        client, inputs = self._client, self._inputs
        match kind:
            case "requests in JSON" | "requests in MessagePack":
                request = inputs.request(token, JSON if kind.endswith("JSON") else MSGPACK)
                self._expect(token, request.kind, request.body)
                await client.send(request.body, correlation_id=token, content_type=request.content_type)
            case "attempts in work queues":
                lane = self._rng.choice(self._stand.fleet.lanes)
                queue = topology.work_name(lane, bulk=self._rng.random() < 0.2)
                await self._put_attempt(token, kind, queue)
            case "attempts that come back":
                await self._put_attempt(token, kind, topology.RETURNED)
            case "reports":
                self._tally(kind).inputs += 1
                self._tally(kind).taken += 1
                await client.publish(inputs.report(), "", to_exchange=topology.REPORTS)
            case "dead letters sent again":
                await client.publish(inputs.letter(token), letters, correlation_id=token, message_id=token)
            case _:
                self._configure(inputs.configuration())

    async def _put_attempt(self, token: str, kind: str, queue: str) -> None:
        body = self._inputs.attempt(token)
        try:
            attempt = decode_attempt(body)
        except msgspec.DecodeError:
            self._expect(token, kind, body)
        else:
            self._expect_of(attempt, kind, body)
        await self._client.publish(body, queue, correlation_id=token)

    async def _replay(self, message: AbstractIncomingMessage) -> None:
        letter = Letter.read(message)
        attempt = letter.request()
        if attempt is None:
            tally = self._tally(LETTERS)
            tally.inputs += 1
            tally.buried += 1
        else:
            self._expect_of(attempt, LETTERS, message.body)
        replay = letter.replay()
        assert (replay is None) is (attempt is None)
        if replay is not None:
            await self._client.publish(
                replay.body,
                "",
                to_exchange=replay.exchange,
                content_type=replay.content_type or None,
                reply_to=replay.reply_to or None,
                correlation_id=replay.correlation_id or None,
                message_id=replay.message_id or None,
            )

    def _configure(self, body: bytes) -> None:
        tally = self._tally(CONFIGURATIONS)
        tally.inputs += 1
        try:
            parse(Path("fleet.toml"), body, {})
        except ConfigError:
            tally.answered += 1
        else:
            tally.taken += 1

    def _expect_of(self, attempt: Attempt, kind: str, body: bytes) -> None:
        token = attempt.correlation_id or attempt.request.id
        if attempt.hedge or attempt.probe or not token:
            tally = self._tally(kind)
            tally.inputs += 1
            tally.taken += 1
        else:
            self._expect(token, kind, body)

    def _expect(self, token: str, kind: str, body: bytes) -> None:
        self._tally(kind).inputs += 1
        self._open[token] = kind, body

    def _tally(self, kind: str) -> Tally:
        return self._kinds.setdefault(kind, Tally())

    def _has_room(self) -> bool:
        """Whether more may be put in; takes note of all that has come to its end."""
        client = self._client
        for token in [token for token in client.answers if token in self._open]:
            kind, _ = self._open.pop(token)
            self._tally(kind).answered += 1
        client.answers.clear()
        dead, client.dead = client.dead, []
        for letter in dead:
            token = letter.correlation_id if isinstance(letter, DeadLetter) else ""
            # A request that can't be read is answered too.
            if token in self._open and not self._open[token][0].startswith(("requests", "valid")):
                kind, _ = self._open.pop(token)
                self._tally(kind).buried += 1
        return len(self._open) < AT_ONCE

    async def _settled(self) -> None:
        def over() -> bool:
            self._has_room()
            return not self._open

        try:
            await wait_until(over, "all inputs have come to their end", timeout_s=SETTLED_WITHIN_S)
        except AssertionError:
            for kind, _ in self._open.values():
                self._tally(kind).lost += 1

    def _stumbles(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for service in self._stand.services:
            said = service.log.read_bytes()[self._read[service.name] :].decode(errors="replace")
            for word in STUMBLES:
                if count := said.count(word):
                    found[f"{service.name}: {word.strip()}"] = count
        return dict(found)

    async def _sample(self) -> None:
        stand = self._stand
        pids = {**self._pids, "rabbitmq": stand.rabbitmq.pid, "redis": stand.redis.pid}
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            for name, pid in pids.items():
                self._memory_mib.setdefault(name, []).append(resident_mib(pid))


@asynccontextmanager
async def stood(folder: Path, seed: int) -> AsyncGenerator[Stand, None]:
    """A fleet of its own: one RabbitMQ, one Redis, a simulator, a dispatcher and two workers; logs go to the folder."""
    async with AsyncExitStack() as stack:
        rabbitmq = await stack.enter_async_context(RabbitMQ(folder / "rabbitmq"))
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        simulator = await stack.enter_async_context(Simulator(seed, log=folder / "simulator.log"))
        config = {**simulated(simulator.urls), **QUICK}
        fleet = Services(folder, config, broker_url=rabbitmq.url, redis_url=redis.url)
        await stack.enter_async_context(fleet)
        await opened(fleet)
        client = await stack.enter_async_context(Client.on(rabbitmq.url))
        yield Stand(rabbitmq, rabbitmq.url, redis, simulator, fleet, client)


async def run(seed: int, inputs: int, folder: Path, options: Options) -> bool:
    """One run on a fleet of its own, with its tables; whether all was as it should be."""
    async with stood(folder, seed) as stand:
        outcome = await Run(stand, seed).all(inputs)
        await stand.heal()  # whatever faults were set, it works again
        broken = await stand.broken()
    total = sum(tally.inputs for tally in outcome.kinds.values())
    table = options.table(
        f"{total:,} inputs in {outcome.seconds:.0f} s",
        *("", "inputs", "answered", "in fleet.dead", "need no answer", "lost"),
    )
    for kind, tally in sorted(outcome.kinds.items()):
        table.row(kind, *(f"{count:,}" for count in msgspec.structs.astuple(tally)))
    flat = outcome.flat()
    table = options.table("Memory, MiB", "", "beginning", "middle", "end", "flat")
    for name, held in outcome.memory_mib.items():
        table.row(name, _beginning(held), _middle(held), _end(held), met(flat[name]))
    print(
        f"\nrestarts {len(outcome.restarts)}, failed handlers and lost connections {outcome.stumbles or 0},"
        f" limits broken {broken or 0}"
    )
    for token, body in list(outcome.lost.items())[:10]:
        print(f"lost: {token} {body!r}")
    return outcome.digested and all(flat.values()) and not broken


def _beginning(held: Sequence[float]) -> float:
    return statistics.median(held[: max(1, len(held) // 10)])


def _middle(held: Sequence[float]) -> float:
    return statistics.median(held[len(held) * 4 // 10 : max(1, len(held) * 6 // 10 + 1)])


def _end(held: Sequence[float]) -> float:
    return statistics.median(held[-max(1, len(held) // 10) :])


def main() -> int:
    """Runs `run` with what the command line says, and keeps its folder if something was not so."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what the inputs follow from (default: 1)")
    parser.add_argument("--inputs", type=int, default=INPUTS, help=f"how many (default: {INPUTS})")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=f"ccxt-fleet-fuzz-{words.seed}-"))
    good = False
    try:
        good = asyncio.run(run(words.seed, words.inputs, folder, Options(markdown=words.markdown)))
    finally:
        if good:
            shutil.rmtree(folder)
        else:
            print(f"logs of seed {words.seed}: {folder}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
