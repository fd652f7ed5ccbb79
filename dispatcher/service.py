"""The dispatcher's I/O: takes requests and returned attempts, asks the router, publishes, then settles."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec import DecodeError
from msgspec.structs import replace

from schemas import addresses, topology
from schemas.config import Config, DispatcherConfig
from schemas.errors import BrokerError, FleetError, InvalidMessage, Refused, Unroutable
from schemas.messages import Attempt, ErrorCode, Outcome, Try, decode_attempt, encode
from schemas.reports import decode_report
from schemas.runtime import results, store
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery
from schemas.runtime.once import Answered
from schemas.runtime.outbox import Outbox
from schemas.runtime.tasks import done_before, end_tasks
from schemas.status import ConfigurationStatus, DispatcherStatus, ProcessStatus

from . import intake, listings, metrics, probes, snapshot, status
from .dropped import Dropped
from .health import State
from .hedges import Hedges
from .probes import Probe
from .removed import Removed
from .router import End, Router, Send, Wait
from .status import Since

log = logging.getLogger(__name__)

# A lane's queue is full or its worker asleep: so long until this attempt looks at the lane again.
FULL_PAUSE_MS = 1_000
# How often it is seen whether a lane needs a probe: requests come first.
PROBES_EVERY_S: Final = 0.5
MEET_EVERY_S: Final = 2.0
# Requests from the bulk queue, and attempts that come back, are at most such a part of those in flight.
BULK_PART: Final = 20
RETURNED_PART: Final = 10


class Dispatcher:
    """One dispatcher process. Any number run side by side: all they know comes from reports."""

    def __init__(self, config: Config) -> None:
        self._config, self._lanes = config.dispatcher, config.lanes
        self._broker = Broker(config.broker, "dispatcher", list(config.lanes))
        self._router = Router(config)
        self._redis_config = config.redis
        self._redis = store.connect(config.redis.url, timeout_s=config.redis.timeout_s)
        self._answered = Answered(self._redis)
        self._outbox = Outbox(self._broker, lambda why: metrics.DIVERTED.labels(why).inc())
        metrics.BLOCKED.set_function(lambda: self._broker.blocked)
        metrics.WAITING.set_function(lambda: self._outbox.count)
        metrics.WAITING_BYTES.set_function(lambda: self._outbox.size_bytes)
        self._taking_back: set[asyncio.Task[None]] = set()
        self._hedges = Hedges(self._answered, self._hedge)
        metrics.HEDGES_KEPT.set_function(lambda: len(self._hedges))
        metrics.HEDGES_BYTES.set_function(lambda: self._hedges.size_bytes)
        self._since: dict[str, Since] = {}
        self._started_ms = results.now_ms()
        self._serves = False
        self._dropped = Dropped(self._broker)
        self._removed = Removed(self._broker, self._on_taken_back, config.broker.patience_s)

    async def run(self, stop: asyncio.Event, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Serves until `stop` is set, then settles what it holds and leaves; `follow` runs meanwhile."""
        try:
            await store.admitted(self._redis, self._redis_config.url, timeout_s=self._redis_config.timeout_s)
            if await done_before(stop, self._broker.start()):
                await self._serve(stop, follow)
        finally:
            await self._broker.close()
            await self._answered.close()
            await self._redis.aclose()
        log.info("dispatcher_left")

    async def _serve(self, stop: asyncio.Event, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await snapshot.load(self._redis, self._router.health, time.monotonic(), results.now_ms())
        await self._broker.subscribe(None, self._on_report, prefetch=0, exchange=topology.REPORTS)
        for queue, prefetch in _prefetch(self._config).items():
            handler = self._on_returned if queue == topology.RETURNED else self._on_request
            await self._broker.subscribe(queue, handler, prefetch=prefetch)
        self._serves = True
        log.info("dispatcher_ready", extra={"lanes": ",".join(self._router.health)})
        async with asyncio.TaskGroup() as side_tasks:
            jobs = (
                *(self._watch, self._probe, self._keep, self._learn, self._meet),
                *(self._broker.lasts, self._removed.run, self._dropped.run, self._hedges.run, follow),
            )
            tasks = [side_tasks.create_task(job(), name=job.__name__) for job in jobs]
            await stop.wait()
            await end_tasks(tasks)
        await self._hedges.close()
        await self._broker.stop_taking()
        await end_tasks(self._taking_back)
        await self._broker.drain(grace_s=self._config.grace_s)

    async def configure(self, config: Config) -> None:
        """Takes another configuration; requests under way go on."""
        await self._broker.serve_lanes(list(config.lanes))
        gone = self._lanes.keys() - config.lanes.keys()
        self._config, self._lanes = config.dispatcher, config.lanes
        self._router.configure(config)
        self._removed.change(gone, set(config.lanes))
        for lane in gone:
            metrics.forget(lane)
            self._since.pop(lane, None)
        for queue, prefetch in _prefetch(self._config).items():
            await self._broker.resize(queue, prefetch)

    def status(self, configuration: ConfigurationStatus) -> DispatcherStatus:
        """What ``/status`` says."""
        now_s, now_ms = time.monotonic(), results.now_ms()
        return DispatcherStatus(
            process=ProcessStatus(
                service="dispatcher",
                name=f"{socket.gethostname()}-{os.getpid()}",
                started_ms=self._started_ms,
                unready=self.unready(),
                configuration=configuration,
                connected=self._broker.connected,
                connects=self._broker.connects,
            ),
            results_dropped=sum(self._dropped.counts.values()),
            lanes=status.lanes(self._router.health.values(), self._lanes, self._since, now_s, now_ms),
        )

    def unready(self) -> str:
        """Why it does not take requests yet."""
        return "" if self._serves and self._broker.connected else "no connection to RabbitMQ"

    async def ill(self) -> str:
        """Why only a fresh process would help."""
        return await self._broker.ill()

    async def _on_report(self, delivery: Delivery) -> None:
        try:
            report = decode_report(delivery.body)
        except DecodeError as error:
            # Nothing is lost: the next report of a worker that speaks our version says the same.
            log.warning("report_unreadable", extra={"error": str(error)})
            return
        self._router.hear(report, time.monotonic())

    async def _watch(self) -> None:
        while True:
            self._watch_states()
            await asyncio.sleep(0.1)

    async def _learn(self) -> None:
        await listings.follow(self._router.knowledge, self._redis)

    async def _meet(self) -> None:
        """Counts the dispatchers: they alone consume `fleet.returned`."""
        while True:
            try:
                self._router.dispatchers = max(1, await self._broker.consumers(topology.RETURNED))
            except BrokerError as error:
                log.debug("dispatchers_not_counted", extra={"error": str(error)})
            await asyncio.sleep(MEET_EVERY_S)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(snapshot.EVERY_S)
            await snapshot.save(self._redis, self._router.health, time.monotonic(), results.now_ms())

    async def _probe(self) -> None:
        """Asks lanes how they are that nobody asks anything; of several dispatchers one for each lane."""
        while True:
            await asyncio.sleep(PROBES_EVERY_S)
            for probe in probes.due(self._router.health, time.monotonic(), results.now_ms()):
                if not await self._may_probe(probe) or probe.lane not in self._router.health:
                    continue  # or it was removed meanwhile
                trial = self._router.health[probe.lane].sent(time.monotonic(), probe=True)
                timeout_s = self._config.trial_timeout_s
                try:
                    await self._send(probes.attempt(probe, results.now_ms(), timeout_s, trial=trial))
                except BrokerError as error:
                    log.warning("probe_not_sent", extra={"lane": probe.lane, "error": str(error)})
                else:
                    metrics.PROBES.labels(probe.lane).inc()

    async def _may_probe(self, probe: Probe) -> bool:
        try:
            kept_ms = int(probe.every_s * 900)
            return bool(await self._redis.set(f"fleet:probe:{probe.lane}", 1, nx=True, px=kept_ms))
        except store.AWAY as error:
            store.lost(error, "probe")
            return True  # a few probes more than needed

    def _watch_states(self) -> None:
        """Logs every change of a lane's state with its reason, and shows it in the metrics."""
        now_s, now_ms = time.monotonic(), results.now_ms()
        for name, health in self._router.health.items():
            state = health.state(now_s)
            metrics.HEALTHY.labels(name).set(state is State.HEALTHY)
            metrics.SHARE.labels(name).set(health.share if health.serving and not health.silent(now_s) else 0)
            metrics.PAUSED.labels(name).set(health.paused_until_ms > now_ms)
            before = self._since.get(name)
            if before is None or before.state is not state:
                self._since[name] = Since(state, now_ms)
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
        """What waits for a lane that stands aside goes elsewhere now, not when it expires."""
        for queue in topology.lane_queues([lane]):
            try:
                taken = await self._broker.take_back(queue.name, self._on_taken_back)
            except FleetError as error:
                # Nothing is lost: what is left there expires, and comes back that way.
                log.warning("not_taken_back", extra={"queue": queue.name, "error": str(error)})
            else:
                if taken:
                    log.info("taken_back", extra={"queue": queue.name, "count": taken})

    async def _on_taken_back(self, delivery: Delivery) -> None:
        attempt = await self._read(delivery)
        if attempt is not None and delivery.repeated:
            attempt = replace(attempt, repeated=True)
        if attempt is not None and not await self._answered.dispensable(attempt):
            text = "fell ill before a worker took it" if attempt.lane in self._lanes else "was removed"
            attempt = _unsent(attempt, ErrorCode.EXPIRED, f"{attempt.lane} {text}")
            await self._advance(self._router.less_removed(attempt), delivery, rested=False)
        await delivery.ack()

    async def _read(self, delivery: Delivery) -> Attempt | None:
        """The attempt in a message; None where it holds none, and lies in `fleet.dead` now."""
        try:
            return decode_attempt(delivery.body)
        except DecodeError as error:
            await self._bury(ErrorCode.UNREADABLE, f"not an attempt: {error}", delivery)
            return None

    async def _on_request(self, delivery: Delivery) -> None:
        started_s = time.perf_counter()
        metrics.REQUESTS.inc()
        attempt = intake.envelope(delivery.properties, delivery.body, results.now_ms())
        try:
            attempt = intake.read(attempt, delivery.body, self._config.timeout_s)
            intake.check(attempt, self._config.methods)
            attempt = replace(attempt, repeated=delivery.repeated, copy=delivery.copy)
        except InvalidMessage as error:
            await self._refuse(attempt, error, delivery)
        else:
            parts = self._router.fan_out(attempt)
            await asyncio.gather(*(self._advance(part, delivery, rested=False, kept=False) for part in parts))
        await delivery.ack()
        metrics.DECISION.observe(time.perf_counter() - started_s)

    async def _on_returned(self, delivery: Delivery) -> None:
        started_s = time.perf_counter()
        attempt = await self._read(delivery)
        if attempt is not None:
            # What expired in a work queue may have been with a worker that answered it and lost the broker.
            if delivery.repeated or (delivery.death_reason and attempt.lane):
                attempt = replace(attempt, repeated=True)
            await self._bring_back(attempt, delivery)
        await delivery.ack()
        metrics.DECISION.observe(time.perf_counter() - started_s)

    async def _bring_back(self, attempt: Attempt, delivery: Delivery) -> None:
        rested = not attempt.lane
        if delivery.death_reason and attempt.lane:
            if delivery.death_reason != "expired":
                text = f"its worker died {topology.DELIVERY_LIMIT} times on lane {attempt.lane}"
                await self._bury(ErrorCode.DELIVERY_LIMIT, text, delivery, attempt)
                if not attempt.probe:
                    await self._end(attempt, End(ErrorCode.DELIVERY_LIMIT, text), delivery)
                return
            if await self._answered.dispensable(attempt):
                return
            attempt = _unsent(attempt, ErrorCode.EXPIRED, f"no worker took it from {attempt.lane}'s queue in time")
        if not rested and attempt.tries:
            last = attempt.tries[-1]
            if last.lane in self._router.health:  # a removed one's metrics would come back
                metrics.RETURNED.labels(last.lane, last.code).inc()
            if last.code is ErrorCode.BAD_SYMBOL:
                self._router.knowledge.correct(last.lane, attempt.request, time.monotonic())
            if last.code is ErrorCode.NO_BUDGET and last.retry_at_ms and last.lane in self._router.health:
                self._router.health[last.lane].refused(attempt.request, last.retry_at_ms)
        if attempt.request.hedge_ms is not None:
            self._hedges.cancel(attempt)
        if attempt.contested and await self._answered.by_another(attempt):
            return
        await self._advance(self._router.less_removed(attempt), delivery, rested=rested)

    async def _advance(self, attempt: Attempt, delivery: Delivery, *, rested: bool, kept: bool = True) -> None:
        """Sends, parks or ends a request; returns when the broker has what it published.

        Args:
            attempt: the request, and what was tried.
            delivery: the message that it is from.
            rested: whether it has just waited.
            kept: whether it lies in a queue of ours as an attempt.
        """
        while True:
            decision = self._router.decide(attempt, time.monotonic(), results.now_ms(), rested=rested)
            match decision:
                case End():
                    await self._end(attempt, decision, delivery, kept=kept)
                case Wait():
                    metrics.WAITS.inc()
                    room = topology.delay_name(topology.delay_for(decision.wait_ms))
                    await self._broker.publish(encode(replace(attempt, lane="")), room)
                case Send():
                    sent = _sent(attempt, decision)
                    try:
                        body = await self._send(sent)
                    except Refused:
                        attempt = _unsent(sent, ErrorCode.NO_BUDGET, f"{decision.lane}'s queue is full")
                        continue
                    except Unroutable:  # another dispatcher knows already that the lane was removed
                        attempt = _unsent(sent, ErrorCode.EXPIRED, f"{decision.lane} has no queue")
                        continue
                    self._hedges.plan(sent, body)
            return

    async def _send(self, attempt: Attempt) -> bytes:
        """Sends an attempt to its lane; gives its message."""
        key, body = topology.work_key(attempt.lane, bulk=attempt.request.bulk), encode(attempt)
        await self._broker.publish(body, key, exchange=topology.WORK, retry_refused=False)
        metrics.SENT.labels(attempt.lane).inc()
        metrics.TRIALS.labels(attempt.lane).inc(attempt.trial)
        return body

    async def _hedge(self, attempt: Attempt) -> bool:
        """Asks a second lane beside this attempt; says whether there was one."""
        decision = self._router.hedge(attempt, time.monotonic(), results.now_ms())
        if decision is not None:
            await self._send(replace(_sent(attempt, decision), hedge=True))
        return decision is not None

    async def _end(self, attempt: Attempt, end: End, delivery: Delivery, *, kept: bool = True) -> None:
        if attempt.contested and end.code is not ErrorCode.DELIVERY_LIMIT:
            first = await self._answered.claim(attempt) if kept else not await self._answered.by_another(attempt)
            if first is False:
                return
        metrics.ENDED.labels(end.code).inc()
        ready = results.ready(attempt, results.failure(attempt, end.code, end.message))
        await self._outbox.put(ready, delivery)
        self._answered.note(attempt)

    async def _refuse(self, attempt: Attempt, error: InvalidMessage, delivery: Delivery) -> None:
        """Answers a request that can't be run; what can't be read at all also goes to `fleet.dead`."""
        log.info("request_refused", extra={"request_id": attempt.request.id, "code": error.code, "why": error.message})
        if error.code is ErrorCode.UNREADABLE:
            await self._bury(error.code, error.message, delivery)
            if not attempt.reply_to or addresses.refusal(attempt.reply_to):
                return
        await self._end(attempt, End(error.code, error.message), delivery, kept=False)

    async def _bury(self, reason: ErrorCode, message: str, delivery: Delivery, attempt: Attempt | None = None) -> None:
        metrics.DEAD.labels(reason).inc()
        await results.bury(self._broker, delivery, reason, message, attempt)


def _prefetch(config: DispatcherConfig) -> dict[str, int]:
    """How many deliveries of each queue are in flight; few enough of those that come by thousands beside new requests.

    Bulk requests do, and so does what comes back from a waiting room. All that are in flight take turns, and few keep a
    dispatcher busy as well as many do.
    """
    bulk, returned = (max(1, config.in_flight // part) for part in (BULK_PART, RETURNED_PART))
    return {topology.RETURNED: returned, topology.REQUESTS: config.in_flight, topology.BULK_REQUESTS: bulk}


def _sent(attempt: Attempt, decision: Send) -> Attempt:
    """The attempt on its way to the lane that was decided on."""
    return replace(
        attempt,
        lane=decision.lane,
        number=attempt.number + 1,
        trial=decision.trial,
        max_wait_ms=decision.max_wait_ms,
        timeout_ms=decision.timeout_ms,
    )


def _unsent(attempt: Attempt, code: ErrorCode, message: str) -> Attempt:
    """The attempt as one that never reached its lane: it costs none of the attempts a request has."""
    item = Try(attempt.lane, Outcome.THROTTLED, code, message, retry_at_ms=results.now_ms() + FULL_PAUSE_MS)
    return attempt.handed_back(item)
