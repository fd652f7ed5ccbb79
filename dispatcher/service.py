"""A dispatcher process: its connections, its subscriptions, and what it does beside handling requests.

No request passes through here: `_serve` subscribes the handlers of `requests.py`, where its way is drawn. Beside them
run tasks that watch the lanes' states, send probes, and save what is known of the lanes for the next dispatcher.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from msgspec import DecodeError

from schemas import topology
from schemas.config import Config, DispatcherConfig
from schemas.errors import BrokerError, FleetError
from schemas.messages import Attempt
from schemas.runtime import results, store
from schemas.runtime.broker import Broker
from schemas.runtime.clock import clock_s
from schemas.runtime.deliveries import Delivery
from schemas.runtime.once import Answered
from schemas.runtime.outbox import Outbox
from schemas.runtime.standstill import Standstills
from schemas.runtime.tasks import SideTasks, done_before, end_tasks
from schemas.status import ConfigurationStatus, DispatcherStatus, ProcessStatus
from schemas.version import VERSION

from . import listings, metrics, probes, snapshot, status
from .circuit import State
from .dropped import Dropped
from .probes import Probe
from .removed import Removed
from .report_reader import ReportReader
from .requests import Requests
from .router import Router
from .sharing import Sharing
from .status import Since
from .telling import Telling
from .told import Change
from .wanted import BY, Demand, Wanted

log = logging.getLogger(__name__)

# Less often than reports come: a request that comes meanwhile makes the probe unnecessary.
PROBES_EVERY_S: Final = 0.5
WATCH_EVERY_S: Final = 0.1
COUNT_EVERY_S: Final = 2.0
# A dispatcher that has just started has not heard enough to say how many workers are wanted.
UNSURE_LOOKS: Final = 5
# Of the bulk queue, and of attempts that come back, at most one in so many of `in_flight` deliveries is held.
BULK_PART: Final = 20
RETURNED_PART: Final = 10


class Dispatcher:
    """One dispatcher process. Any number run side by side: all they know comes from reports."""

    def __init__(self, config: Config) -> None:
        self._config, self._lanes, self._places = config.dispatcher, config.lanes, config.places
        self._broker = Broker(config.broker, "dispatcher", list(config.lanes))
        self._demand, self._wanted = Demand(), Wanted(0, "demand", "")
        self._redis_config = config.redis
        self._redis = store.connect(config.redis.url, timeout_s=config.redis.timeout_s)
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._stills = Standstills()
        self._unheard = Standstills(self._stills.awake_s)
        # The clock of all that is measured from what arrives, as reports: nothing does while this process stands still,
        # and then it lies unread, nor without a connection.
        self._clock = self._unheard.awake_s
        self._telling = Telling(self._redis, self._name, self._on_told, self._stills.awake_s)
        self._router, self._reader = Router(config, self._telling.note), ReportReader()
        self._answered = Answered(self._redis)
        self._outbox = Outbox(self._broker, lambda why: metrics.DIVERTED.labels(why).inc())
        metrics.BLOCKED.set_function(lambda: self._broker.blocked)
        metrics.WAITING.set_function(lambda: self._outbox.count)
        metrics.WAITING_BYTES.set_function(lambda: self._outbox.size_bytes)
        self._sharing = sharing = Sharing(self._redis, self._turn_ms)
        metrics.SHARED_HELD.set_function(lambda: sharing.held.count)
        metrics.SHARED_BYTES.set_function(lambda: sharing.held.size_bytes)
        self._requests = Requests(
            self._broker, self._router, self._answered, self._outbox, sharing, config.dispatcher, self._clock
        )
        hedges = self._requests.hedges
        metrics.HEDGES_KEPT.set_function(lambda: len(hedges))
        metrics.HEDGES_BYTES.set_function(lambda: hedges.size_bytes)
        self._taking_back: set[asyncio.Task[None]] = set()
        self._since: dict[str, Since] = {}
        self._shown: dict[str, tuple[bool, float, bool]] = {}  # by lane, as its metrics are
        self._started_ms = results.now_ms()
        self._serves = False
        self.changed = asyncio.Event()
        self._dropped = Dropped(self._broker)
        self._removed = Removed(self._broker, self._requests.on_taken_back, config.broker.patience_s, self._clock)

    def _turn_ms(self, attempt: Attempt) -> float:
        return self._router.turn_ms(attempt, self._clock(), results.now_ms())

    async def run(self, stop: asyncio.Event, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Serves until `stop` is set, then settles what it holds and leaves; `follow` runs meanwhile."""
        stills, unheard = self._stills.run(), self._unheard.run(lambda: self._broker.connected)
        ticking = [asyncio.create_task(stills, name="standstills"), asyncio.create_task(unheard, name="unheard")]
        try:
            await store.check_access(self._redis, self._redis_config.url, timeout_s=self._redis_config.timeout_s)
            if await done_before(stop, self._broker.start()):
                await self._serve(stop, follow)
        finally:
            await self._broker.close()
            await self._answered.close()
            await self._redis.aclose()
            await end_tasks(ticking)
        log.info("dispatcher_left")

    async def _serve(self, stop: asyncio.Event, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await snapshot.load(self._redis, self._router.health, self._clock(), results.now_ms())
        await self._broker.subscribe(None, self._on_report, prefetch=0, exchange=topology.REPORTS)
        for queue, prefetch in _prefetch(self._config).items():
            handler = self._requests.on_returned if queue == topology.RETURNED else self._requests.on_request
            await self._broker.subscribe(queue, handler, prefetch=prefetch)
        self._serves = True
        self.changed.set()
        log.info("dispatcher_ready", extra={"lanes": ",".join(self._router.health)})
        async with SideTasks() as side_tasks:
            jobs = (
                *(self._watch, self._probe, self._save, self._follow_listings, self._count_dispatchers, self._want),
                *(self._broker.lasts, self._removed.run, self._dropped.run, self._requests.hedges.run, follow),
                *(self._sharing.run, self._telling.tell, self._telling.hear),
            )
            tasks = [side_tasks.create_task(job(), name=job.__name__) for job in jobs]
            await side_tasks.until(stop)
            await end_tasks(tasks)
        await self._requests.hedges.close()
        self._sharing.close()
        await self._broker.stop_taking()
        await end_tasks(self._taking_back)
        await self._broker.drain(grace_s=self._config.grace_s)
        await self._sharing.end()

    async def configure(self, config: Config) -> None:
        """Takes another configuration; requests in progress go on."""
        await self._broker.serve_lanes(list(config.lanes))
        gone = self._lanes.keys() - config.lanes.keys()
        self._config, self._lanes, self._places = config.dispatcher, config.lanes, config.places
        self._router.configure(config)
        self._requests.configure(config.dispatcher)
        self._removed.change(gone, set(config.lanes))
        for lane in gone:
            metrics.forget(lane)
            self._since.pop(lane, None)
            self._shown.pop(lane, None)
        for queue, prefetch in _prefetch(self._config).items():
            await self._broker.resize(queue, prefetch)

    def status(self, configuration: ConfigurationStatus) -> DispatcherStatus:
        """What ``/status`` says."""
        now_s, now_ms = self._clock(), results.now_ms()
        return DispatcherStatus(
            process=ProcessStatus(
                service="dispatcher",
                name=self._name,
                started_ms=self._started_ms,
                unready=self.unready(),
                configuration=configuration,
                connected=self._broker.connected,
                connects=self._broker.connects,
                version=VERSION,
            ),
            results_dropped=sum(self._dropped.counts.values()),
            workers_wanted=self._wanted.count,
            workers_wanted_why=self._wanted.why,
            shared=self._sharing.ends,
            lanes=status.lanes(self._router.health.values(), self._lanes, self._since, now_s, now_ms),
        )

    def unready(self) -> str:
        """Why it does not take requests yet."""
        return "" if self._serves and self._broker.connected else "no connection to RabbitMQ"

    async def unhealthy(self) -> str:
        """Why only a fresh process would help."""
        return await self._broker.unhealthy()

    async def _on_report(self, delivery: Delivery) -> None:
        try:
            report = self._reader.read(delivery.body)
        except DecodeError as error:
            # Nothing is lost: workers report again 0.2 s later, those of our version in a form that can be read.
            log.warning("report_unreadable", extra={"error": str(error)})
            return
        self._router.observe(report, self._clock())
        self._demand.observe(report, clock_s())

    def _on_told(self, changes: Sequence[tuple[str, Change]]) -> None:
        self._router.take_changes(changes, results.now_ms())

    async def _watch(self) -> None:
        while True:
            self._watch_states()
            await asyncio.sleep(WATCH_EVERY_S)

    async def _follow_listings(self) -> None:
        await listings.follow(self._router.knowledge, self._redis)

    async def _count_dispatchers(self) -> None:
        """Counts the dispatchers: they alone consume `fleet.returned`."""
        while True:
            try:
                count = max(1, await self._broker.consumers(topology.RETURNED))
                heard = self._telling.others(count)
                metrics.HEARD.set(heard)
                self._router.set_dispatchers(count, heard)
            except BrokerError as error:
                log.debug("dispatchers_not_counted", extra={"error": str(error)})
            await asyncio.sleep(COUNT_EVERY_S)

    async def _want(self) -> None:
        """Says how many workers could be used, again and again."""
        looks = 0
        while True:
            begun_s, heard_s = clock_s(), self._clock()
            await asyncio.sleep(COUNT_EVERY_S)
            lanes = self._router.health
            queued: dict[str, int] = {}
            for name in self._demand.full(lanes.values(), self._places, self._clock()):
                try:
                    queued[name] = await self._broker.length(topology.work_name(name, bulk=False))
                except BrokerError as error:
                    log.debug("queue_not_counted", extra={"lane": name, "error": str(error)})
            silent_after_s, now_s = self._config.silent_after_s, clock_s()
            if now_s - begun_s - (self._clock() - heard_s) > silent_after_s / 2:
                continue  # reports of that time are still to be read; the next look counts them, and the time
            found = self._demand.look(lanes, queued, self._places, silent_after_s, now_s, results.now_ms())
            looks += 1
            if looks >= UNSURE_LOOKS:
                self._wanted = found
                metrics.WANTED.set(found.count)
                for by in BY:
                    metrics.WANTED_BOUND.labels(by).set(by == found.by)

    async def _save(self) -> None:
        """Saves what is known of the lanes for the next dispatcher."""
        while True:
            await asyncio.sleep(snapshot.EVERY_S)
            await snapshot.save(self._redis, self._router.health, self._clock(), results.now_ms())

    async def _probe(self) -> None:
        """Sends the probes that are due; only one of several dispatchers probes a lane."""
        while True:
            await asyncio.sleep(PROBES_EVERY_S)
            for probe in probes.due(self._router.health, self._clock(), results.now_ms()):
                if not await self._may_probe(probe) or probe.lane not in self._router.health:
                    continue  # another dispatcher probes it, or it was removed meanwhile
                health = self._router.health[probe.lane]
                trial, timeout_s = health.sent(self._clock(), probe=True), health.trial_timeout_s
                try:
                    await self._requests.send(probes.attempt(probe, results.now_ms(), timeout_s, trial=trial))
                except BrokerError as error:
                    log.warning("probe_not_sent", extra={"lane": probe.lane, "error": str(error)})
                else:
                    metrics.PROBES.labels(probe.lane).inc()

    async def _may_probe(self, probe: Probe) -> bool:
        try:
            kept_ms = int(probe.every_s * 900)
            return bool(await self._redis.set(f"fleet:probe:{probe.lane}", 1, nx=True, px=kept_ms))
        except store.AWAY as error:
            store.count_loss(error, "probe")
            return True  # then every dispatcher probes

    def _watch_states(self) -> None:
        """Updates the lanes' metrics, and logs every change of a lane's state with its reason."""
        now_s, now_ms = self._clock(), results.now_ms()
        for name, health in self._router.health.items():
            state = health.state(now_s)
            share = health.share if health.serving and not health.silent(now_s) else 0.0
            shown = state is State.HEALTHY, share, health.paused_until_ms > now_ms
            if self._shown.get(name) != shown:  # to set a metric takes longer than all else here
                self._shown[name] = shown
                metrics.HEALTHY.labels(name).set(shown[0])
                metrics.SHARE.labels(name).set(share)
                metrics.PAUSED.labels(name).set(shown[2])
            before = self._since.get(name)
            if before is None or before.state is not state:
                self._since[name] = Since(state, now_ms)
                self.changed.set()
                if before is not None and state in (State.OFFLINE, State.MAINTENANCE):
                    self._start_take_back(name)
                for each in State:
                    metrics.STATE.labels(name, each).set(each is state)
                log.info("lane_state", extra={"lane": name, "state": state, "reason": health.reason(now_s)})

    def _start_take_back(self, lane: str) -> None:
        task = asyncio.create_task(self._take_back(lane), name=f"take back {lane}")
        self._taking_back.add(task)
        task.add_done_callback(self._taking_back.discard)

    async def _take_back(self, lane: str) -> None:
        """Takes back the attempts in the queues of a lane that went down: they need not expire there first."""
        for queue in topology.lane_queues([lane]):
            try:
                taken = await self._broker.take_back(queue.name, self._requests.on_taken_back)
            except FleetError as error:
                # Nothing is lost: attempts that are left there come back when they expire.
                log.warning("take_back_failed", extra={"queue": queue.name, "error": str(error)})
            else:
                if taken:
                    log.info("attempts_taken_back", extra={"queue": queue.name, "count": taken})


def _prefetch(config: DispatcherConfig) -> dict[str, int]:
    """How many deliveries of each queue a dispatcher holds at once, at most.

    Bulk requests and attempts that come back may lie there in thousands. A dispatcher works on all the deliveries that
    it holds in turn. So it holds few of those: new requests are not held up by them, and few keep it as busy as many.
    """
    bulk, returned = (max(1, config.in_flight // part) for part in (BULK_PART, RETURNED_PART))
    return {topology.RETURNED: returned, topology.REQUESTS: config.in_flight, topology.BULK_REQUESTS: bulk}
