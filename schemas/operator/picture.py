"""The fleet as a command sees it: workers' reports and queues from RabbitMQ, each process's status from Redis.

Either server may be away: what comes from the other one is shown all the same.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Final

import aiormq.exceptions
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from msgspec import Struct
from msgspec.structs import replace

from .. import topology
from ..reports import LaneReport, Report, decode_report
from ..runtime import presence, store
from ..runtime.presence import Presence
from ..status import OPENING, SharedAnswers
from ..urls import place
from . import pauses, servers
from .pauses import Pause
from .servers import ServerAway
from .shapes import BucketView, LaneView, ProcessView, QueueView, ServerView

# Reports come every 200 ms, unless `worker.report_every_s` says otherwise; the longest that it may say is 1.5 s.
LISTEN_S: Final = 1.0
MOST_S: Final = 2.0
# A worker that is silent for longer is gone, or too slow to be counted on.
SILENT_S: Final = 5.0


class Counts(Struct):
    """What workers did on one lane since the command began to listen."""

    ok: int = 0
    failed: int = 0
    rejected: int = 0
    throttled: int = 0
    exchange_ms: float = 0.0  # of those that are ok, together


class BucketCounts(Struct):
    """What calls took from one bucket since the command began to listen, and how many found no room."""

    granted: float = 0.0
    refused: int = 0


class Reported(Struct):
    """The last report of a worker, when it came, by the monotonic clock, and whether all of its lanes are in it."""

    report: Report
    at_s: float
    is_whole: bool
    behind_ms: float = 0.0  # this machine's clock when it came, less the worker's when it was sent; the least so far


class Picture:
    """What is known of the fleet.

    Attributes:
        reports: the last report of each worker that is there.
        counts: by lane.
        buckets: by lane and bucket.
        rabbitmq: RabbitMQ.
        redis: Redis.
        presence: the processes' statuses; None where Redis is away.
        pauses: those that hold; None where Redis is away.
        queues: the queues that are there, by name.
    """

    def __init__(self) -> None:
        self.reports: dict[str, Reported] = {}
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.buckets: defaultdict[tuple[str, str], BucketCounts] = defaultdict(BucketCounts)
        self.rabbitmq = ServerView("")
        self.redis = ServerView("")
        self.presence: Presence | None = None
        self.pauses: list[Pause] | None = None
        self.queues: dict[str, QueueView] = {}

    async def take(self, message: AbstractIncomingMessage) -> None:
        """A report came. One that can't be read is of another version, or none."""
        with contextlib.suppress(msgspec.DecodeError):
            self.observe(decode_report(message.body), time.monotonic(), time.time() * 1000)

    def observe(self, report: Report, now_s: float, now_ms: float) -> None:
        """Takes in a report."""
        if report.leaving:
            self.reports.pop(report.worker, None)
            return
        before = self.reports.get(report.worker)
        if not report.whole:
            news = {lane.lane for lane in report.lanes}
            known = before.report.lanes if before else []
            rest = [replace(lane.at_rest(), buckets=lane.buckets) for lane in known if lane.lane not in news]
            whole = replace(report, lanes=[*report.lanes, *rest])
        else:
            whole = report
        behind_ms = now_ms - report.sent_ms
        least_ms = min(behind_ms, before.behind_ms) if before else behind_ms
        is_whole = report.whole or (before is not None and before.is_whole)
        self.reports[report.worker] = Reported(whole, now_s, is_whole, least_ms)
        for lane in report.lanes:
            counts = self.counts[lane.lane]
            counts.ok += lane.ok
            counts.failed += sum(lane.failed.values())
            counts.rejected += lane.rejected
            counts.throttled += lane.throttled
            counts.exchange_ms += lane.exchange_ms * lane.ok
            for name, bucket in lane.buckets.items():
                self.buckets[lane.lane, name].granted += bucket.granted
                self.buckets[lane.lane, name].refused += bucket.refused

    def begin(self) -> None:
        """Counts from now on."""
        self.counts.clear()
        self.buckets.clear()

    def forget_silent(self, now_s: float) -> None:
        """Forgets workers that report no more."""
        for name in [name for name, each in self.reports.items() if now_s - each.at_s > SILENT_S]:
            del self.reports[name]

    def lane_names(self) -> list[str]:
        """All lanes that anybody speaks of, in the configuration's order as far as that shows."""
        named: dict[str, None] = {}
        if self.presence:
            named.update((lane.lane, None) for each in self.presence.dispatchers for lane in each.lanes)
            named.update((lane.lane, None) for each in self.presence.workers for lane in each.lanes)
        for each in self.reports.values():
            named.update((lane.lane, None) for lane in each.report.lanes)
            named.update(dict.fromkeys(each.report.unopened))
        return list(named)

    def lanes(self) -> list[LaneView]:
        """All lanes."""
        routed = {lane.lane: lane for each in (self.presence or _NOBODY).dispatchers for lane in each.lanes}
        whole = sum(lane.share for lane in routed.values())
        views: list[LaneView] = []
        for name in self.lane_names():
            unopened, reported = self.unopened(name), self._reported(name)
            # Reports are fresher than what dispatchers say in Redis.
            why = next((why for why in unopened.values() if why != OPENING), OPENING)
            opening = f"it has not opened: {why}" if unopened and not reported else ""
            if (lane := routed.get(name)) is None:
                views.append(
                    LaneView(
                        name,
                        self._exchange(name),
                        "unknown",
                        opening or "no dispatcher says how it is",
                        unopened,
                        workers=len(reported),
                        in_flight=sum(each.in_flight for each in reported),
                    )
                )
                continue
            views.append(
                LaneView(
                    name,
                    lane.exchange,
                    lane.state,
                    opening if opening and lane.state == "offline" else lane.reason,
                    unopened,
                    lane.since_ms,
                    lane.paused_until_ms,
                    lane.paused_by,
                    lane.trial_in_s,
                    round(lane.share / whole, 3) if whole else 0.0,
                    lane.workers,
                    lane.in_flight,
                    lane.waiting,
                    lane.latency_ms,
                )
            )
        return views

    def unopened(self, lane: str) -> dict[str, str]:
        """Which workers could not open a lane yet, and why; they say so in their reports, and in Redis."""
        return {each.name: each.unopened[lane] for each in self.worker_views() if lane in each.unopened}

    def bucket_views(self) -> list[BucketView]:
        """All buckets that are in use, the fullest of each lane first."""
        found: dict[tuple[str, str], BucketView] = {}
        for each in self.reports.values():
            for lane in each.report.lanes:
                for name, said in lane.buckets.items():
                    key = lane.lane, name
                    before, counts = found.get(key), self.buckets[key]
                    used, effective = said.used, said.effective
                    if before is not None:
                        used, effective = max(used, before.used_part), min(effective, before.effective_part)
                    capacity = said.amount * effective
                    found[key] = BucketView(
                        lane.lane,
                        name,
                        round(used * capacity, 3),
                        round(capacity, 3),
                        said.amount,
                        said.window_s,
                        round(used, 3),
                        round(effective, 3),
                        max(said.paused_ms / 1000, before.paused_s if before else 0.0),
                        round(counts.granted, 3),
                        counts.refused,
                    )
        order = {name: number for number, name in enumerate(self.lane_names())}
        return sorted(found.values(), key=lambda each: (order[each.lane], -each.used_part, each.bucket))

    def own_parts(self) -> dict[str, float]:
        """The lanes of which some worker has only its own part of the budget, as Redis is away for it."""
        parts: dict[str, float] = {}
        for each in self.reports.values():
            for lane in each.report.lanes:
                if lane.own_part is not None:
                    parts[lane.lane] = min(lane.own_part, parts.get(lane.lane, 1.0))
        return parts

    def shared(self) -> dict[str, SharedAnswers]:
        """What came of requests that may share answers, by dispatcher, since each started."""
        return {each.process.name: each.shared for each in (self.presence or _NOBODY).dispatchers}

    def dispatchers(self) -> int:
        """How many dispatchers there are: they alone consume `fleet.returned`."""
        queue = self.queues.get(topology.RETURNED)
        return queue.consumers if queue else len((self.presence or _NOBODY).dispatchers)

    def dispatcher_views(self) -> list[ProcessView]:
        """The dispatchers that have said how they are."""
        return [
            ProcessView(
                each.process.name,
                each.process.version,
                "",
                each.process.started_ms,
                each.process.unready,
                each.process.configuration.version,
                each.process.configuration.error,
                len(each.lanes),
            )
            for each in (self.presence or _NOBODY).dispatchers
        ]

    def worker_views(self) -> list[ProcessView]:
        """The workers that report, and those that have said how they are."""
        views = {
            each.process.name: ProcessView(
                each.process.name,
                each.process.version,
                each.ccxt,
                each.process.started_ms,
                each.process.unready,
                each.process.configuration.version,
                each.process.configuration.error,
                sum(lane.open for lane in each.lanes),
                {lane.lane: lane.error or OPENING for lane in each.lanes if not lane.open},
            )
            for each in (self.presence or _NOBODY).workers
        }
        for name, each in self.reports.items():
            said = each.report
            began_ms, unopened = said.started_ms or None, {lane: why or OPENING for lane, why in said.unopened.items()}
            before = views.get(name) or ProcessView(name, said.version, said.ccxt, began_ms)
            views[name] = replace(before, lanes=len(said.lanes), unopened=unopened)
        return sorted(views.values(), key=lambda each: each.name)

    def _reported(self, lane: str) -> list[LaneReport]:
        return [each for said in self.reports.values() for each in said.report.lanes if each.lane == lane]

    def _exchange(self, lane: str) -> str:
        for worker in (self.presence or _NOBODY).workers:
            for each in worker.lanes:
                if each.lane == lane:
                    return each.exchange
        return lane.partition(".")[0]


_NOBODY: Final = Presence([], [])


@contextlib.asynccontextmanager
async def listening(urls: tuple[str, ...], picture: Picture) -> AsyncGenerator[AbstractConnection, None]:
    """Takes in workers' reports until the end; there are none where the fleet has never run. Raises ServerAway."""
    async with servers.rabbitmq(urls) as connection:
        picture.rabbitmq = server(connection, urls)
        channel = await connection.channel()
        queue = await servers.own_queue(channel, arguments={"x-max-length": 1000})
        try:
            await queue.bind(topology.REPORTS)
            await queue.consume(picture.take, no_ack=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            pass
        yield connection


def server(connection: AbstractConnection, urls: tuple[str, ...]) -> ServerView:
    """What RabbitMQ says of itself as a connection is made."""
    any_connection: Any = connection
    parts: dict[str, Any] = any_connection.transport.connection.server_properties
    names = [parts.get(name, b"") for name in ("product", "version")]
    said = " ".join(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    at = any_connection.url
    return ServerView(f"{at.host}:{at.port or place(urls[0]).rpartition(':')[2]}", said)


async def look_at_redis(url: str, picture: Picture) -> None:
    """Asks Redis once; where it is away, the picture says why."""
    picture.presence = picture.pauses = None
    at = place(url)
    try:
        async with servers.redis_at(url) as client:
            any_client: Any = client
            picture.presence = await presence.read(client)
            picture.pauses = await pauses.held(client)
            try:
                info: dict[str, Any] = await any_client.info("server")
            except store.AWAY:  # a user without that right
                info = {}
    except ServerAway as error:
        picture.redis = ServerView(at, error=str(error))
        return
    uptime_s = info.get("uptime_in_seconds")
    since_ms = None if uptime_s is None else int((time.time() - uptime_s) * 1000)
    picture.redis = ServerView(at, " ".join(servers.product(info)).strip(), since_ms)


async def look_at_queues(connection: AbstractConnection, picture: Picture, names: Iterable[str] = ()) -> None:
    """Counts the messages in the fleet's queues, or in some of them; those that are not there are left out."""
    wanted = list(names) or [each.name for each in topology.queues(picture.lane_names())]
    found: dict[str, QueueView] = {}
    channel: AbstractChannel | None = None
    for name in wanted:
        channel = channel or await connection.channel()
        try:
            declared = (await channel.declare_queue(name, passive=True)).declaration_result
        except aiormq.exceptions.ChannelNotFoundEntity:
            channel = None  # RabbitMQ has closed it
            continue
        found[name] = QueueView(name, declared.message_count or 0, declared.consumer_count or 0)
    if channel is not None:
        await channel.close()
    picture.queues = found


async def listen(picture: Picture, redis_url: str) -> None:
    """Waits until the workers that are known have reported all of their lanes, and for a second in any case.

    What dispatchers say of lanes is then as new as what workers report of them.
    """
    begun_s = time.monotonic()
    while True:
        passed_s = time.monotonic() - begun_s
        expected = {each.process.name for each in (picture.presence or _NOBODY).workers}
        known = {name for name, each in picture.reports.items() if each.is_whole}
        if passed_s >= MOST_S or (passed_s >= LISTEN_S and expected <= known):
            break
        await asyncio.sleep(0.05)
    if not picture.redis.error:
        await look_at_redis(redis_url, picture)


async def taken(urls: tuple[str, ...], redis_url: str, *, queues: bool = True) -> Picture:
    """A picture of the fleet now. Where RabbitMQ or Redis is away, it says so in `rabbitmq` or `redis`.

    Args:
        urls: RabbitMQ's.
        redis_url: Redis's.
        queues: whether the queues are counted.
    """
    picture = Picture()
    await look_at_redis(redis_url, picture)
    try:
        async with listening(urls, picture) as connection:
            await listen(picture, redis_url)
            if queues:
                await look_at_queues(connection, picture)
    except ServerAway as error:
        at = picture.rabbitmq.place or place(urls[0])
        picture.rabbitmq = ServerView(at, picture.rabbitmq.version, error=str(error))
    return picture


async def taken_again(urls: tuple[str, ...], redis_url: str, *, every_s: float) -> AsyncGenerator[Picture, None]:
    """Pictures of the fleet, one after another, each with what workers reported since the one before.

    Raises:
        ServerAway: RabbitMQ is away. Where Redis is, the picture says so.
    """
    picture = Picture()
    await look_at_redis(redis_url, picture)
    async with listening(urls, picture):
        await listen(picture, redis_url)
        while True:
            yield picture
            picture.begin()
            _, _ = await asyncio.gather(look_at_redis(redis_url, picture), asyncio.sleep(every_s))
            picture.forget_silent(time.monotonic())
