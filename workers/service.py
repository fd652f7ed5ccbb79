"""A worker process: its connections, its lanes, and the reports that it publishes.

No attempt passes through here: `Lanes` subscribes `Attempts.take` for each lane that is open, and `attempts.py` draws
an attempt's way.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from schemas import topology
from schemas.config import Config
from schemas.errors import BrokerError, FleetError
from schemas.messages import encode
from schemas.reports import Report
from schemas.runtime import results, store
from schemas.runtime.broker import Broker
from schemas.runtime.clock import clock_s
from schemas.runtime.once import Answered, Once
from schemas.runtime.outbox import Outbox
from schemas.runtime.standstill import Standstills
from schemas.runtime.tasks import SideTasks, done_before, done_within, end_tasks
from schemas.status import ConfigurationStatus, ProcessStatus, ServedLane, WorkerStatus
from schemas.version import VERSION

from . import metrics, status
from .attempts import Attempts
from .budget.budget import Budget
from .budget.grants import Use
from .exchange.charged import CCXT_VERSION
from .heap import Heap
from .keeping import Keeping
from .lanes import Lane, Lanes
from .part import ALL, Part
from .peers import LOOK_EVERY_S, Peers
from .reports import Busy, LanePause, Reports
from .spread import Peer, Spread, counts

log = logging.getLogger(__name__)

# How long publishing the last report may take.
LEAVING_S: Final = 2.0
# Where nothing happens it reports so often that a dispatcher may miss two reports and still takes no lane for silent.
QUIET_PART: Final = 0.25
# How often a worker that starts looks for others before it takes lanes.
MEET_LOOKS: Final = 3


class Worker:
    """One worker process. Any number run side by side, because they share the budgets.

    Args:
        config: the configuration.
        part: which of its lanes are served.

    Raises:
        ConfigError: no lane fits one of the part's patterns.
    """

    def __init__(self, config: Config, part: Part = ALL) -> None:
        part.check(config.lanes)
        self._part = part
        self._start_with = self._configured = config
        self._config = config.worker
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._spread = Spread(self.name, part, counts(config))
        # Where others serve a part of the lanes it is not known yet which are this one's.
        lanes = [] if config.worker.spread else part.of(config.lanes)
        self._broker = Broker(config.broker, f"worker {self.name}", lanes, reports=True)
        self._redis = store.connect(config.redis.url, timeout_s=config.redis.timeout_s)
        # With connections of its own: who waits behind the questions of a thousand lanes looks gone to the others.
        self._peers_redis = store.connect(config.redis.url, timeout_s=config.redis.timeout_s)
        self._peers = Peers(self._peers_redis, self.name, part)
        self._others: dict[str, Peer] = {}  # as last seen
        self._changing = asyncio.Lock()
        self._begun = False  # its lanes are made
        self._reports = Reports()
        self.changed = self._reports.changed
        self._pauses: dict[str, LanePause] = {}  # as last seen
        self._side_tasks = SideTasks()
        self._started_ms = results.now_ms()
        self._busy = Busy()
        self._answered = Answered(self._redis)
        self._idle = ""  # why it serves nothing at all
        self._unopened: dict[str, str] = {}  # as last reported
        self._quiet_until_s = 0.0  # until then it need not report that nothing happens
        self._alone: set[str] = set()  # lanes whose budget was not shared when it last reported
        self._unknown: set[str] = set()  # lanes whose budget is not known now, as was logged
        self._outbox = Outbox(self._broker, lambda why: metrics.DIVERTED.labels(why).inc())
        self._keeping = Keeping(self._redis, int(config.redis.answers_mib * 2**20))
        once = Once(self._answered)
        attempts = Attempts(
            self._broker, once, self._outbox, self._reports, self._keeping, self._serving, config.worker
        )
        self._attempts = attempts
        self._heap = Heap()
        self._standstills = Standstills()
        self._lanes = Lanes(
            config,
            self._redis,
            self._broker,
            self._reports,
            attempts.take,
            self._heap,
            self._spread,
            self._standstills.still_s,
        )
        metrics.BLOCKED.set_function(lambda: self._broker.blocked)
        metrics.WAITING.set_function(lambda: self._outbox.count)
        metrics.WAITING_BYTES.set_function(lambda: self._outbox.size_bytes)

    async def run(self, stop: asyncio.Event, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Serves until `stop` is set, then finishes or hands back its attempts; `follow` runs meanwhile."""
        try:
            redis = self._start_with.redis
            if self._spread.counts:
                await store.check_access(self._redis, redis.url, timeout_s=redis.timeout_s)
                await done_before(stop, self._meet())
            made = await self._lanes.plan(self._start_with)
            self._broker.expect_lanes(self._spread.of(self._start_with.lanes))
            await store.check_access(self._redis, redis.url, timeout_s=redis.timeout_s)
            looking = asyncio.create_task(self._look_around())
            try:
                started = await done_before(stop, self._broker.start())
            finally:
                await end_tasks([looking])
            if started:
                await self._work(made, stop, follow)
        finally:
            await self._broker.close()
            await self._answered.close()
            await self._keeping.close()
            await self._lanes.close()
            await self._peers_redis.aclose()
            await self._redis.aclose()
        log.info("worker_left", extra={"worker": self.name})

    async def configure(self, config: Config) -> None:
        """Takes another configuration; attempts in progress end on the lanes where they began."""
        async with self._changing:
            before, self._spread.counts = self._spread.counts, counts(config)
            try:
                await self._change(config)
            except FleetError:
                self._spread.counts = before
                raise
        if unmatched := self._part.unmatched(config.lanes):
            # Refused, it would go on serving lanes whose queues the dispatchers delete.
            log.warning("lanes_unmatched", extra={"patterns": ",".join(unmatched)})
        self._idle = "" if self._part.of(config.lanes) else f"no lane fits --lanes {','.join(self._part.patterns)}"

    async def _change(self, config: Config) -> None:
        """Serves the lanes that are this worker's by now, or by another configuration, as that has them."""
        made = await self._lanes.plan(config)
        try:
            await self._broker.serve_lanes(self._spread.of(config.lanes))
        except FleetError:
            await self._lanes.discard(made)
            raise
        self._configured, self._config = config, config.worker
        self._attempts.configure(config.worker)
        self._lanes.apply(config, made, self._side_tasks)

    async def _meet(self) -> None:
        """Learns which other workers are there: those that start at the same time need a moment to say so."""
        looks = 0
        while looks < MEET_LOOKS:
            looks += await self._see_others()
            await asyncio.sleep(LOOK_EVERY_S)
        self._spread.learn(self._others, self._lanes.known)

    async def _see_others(self) -> bool:
        """Says which lanes are open here and learns which other workers are there; returns whether Redis answered."""
        known = self._lanes.known
        try:
            self._others = await self._peers.look([name for name in self._lanes.serving if name in known])
        except store.AWAY as error:
            store.count_loss(error, "peers")
            return False
        return True

    async def _look_around(self) -> None:
        """Goes on saying that this worker is there, and looking who else is; never returns."""
        # Also while lanes change, which takes minutes with a thousand: the others take the lanes of who is silent.
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._spread.counts:
                await self._see_others()

    async def _share_out(self) -> None:
        """Serves other lanes as workers come and go; never returns."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            async with self._changing:
                if not self._spread.counts:
                    continue
                self._spread.learn(self._others, self._lanes.known)
                if set(self._spread.of(self._configured.lanes)) != self._lanes.known.keys():
                    try:
                        await self._change(self._configured)
                    except FleetError as error:
                        log.warning("lanes_not_taken", extra={"error": str(error)})

    async def _say_goodbye(self) -> None:
        """Others need not wait until they miss it."""
        if self._spread.counts:
            try:
                await self._peers.look((), leaving=True)
            except store.AWAY as error:
                store.count_loss(error, "peers")

    def status(self, configuration: ConfigurationStatus) -> WorkerStatus:
        """What ``/status`` says."""
        lanes = self._served()
        return WorkerStatus(
            process=ProcessStatus(
                service="workers",
                name=self.name,
                started_ms=self._started_ms,
                unready=self.unready(),
                configuration=configuration,
                connected=self._broker.connected,
                connects=self._broker.connects,
                version=VERSION,
            ),
            ccxt=CCXT_VERSION,
            redis=all(lane.budget == "shared" for lane in lanes),
            lanes=lanes,
        )

    def unready(self) -> str:
        """Why it does not take attempts yet."""
        has_none = self._begun and bool(self._spread.counts) and not self._lanes.known
        return self._idle or status.unready(self._broker.connected, self._served(), has_none=has_none)

    async def unhealthy(self) -> str:
        """Why only a fresh process would help."""
        return await self._broker.unhealthy()

    def _serving(self, name: str) -> Lane | None:
        return self._lanes.serving.get(name)

    def _served(self) -> list[ServedLane]:
        in_flight = self._reports.in_flight()
        return [
            status.lane(
                name,
                lane.exchange.known_as,
                markets=lane.exchange.markets_known,
                methods=lane.exchange.methods,
                in_flight=in_flight,
                error=lane.error,
                own_part=lane.budget.own_part,
            )
            for name, lane in self._lanes.known.items()
        ]

    async def _work(
        self, made: dict[str, Lane], stop: asyncio.Event, follow: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Works until `stop` is set. A side task that dies ends the process, and a supervisor starts it again."""
        async with self._side_tasks as side_tasks:
            self._lanes.apply(self._start_with, made, side_tasks)
            self._begun = True
            self.changed.set()
            side_tasks.create_task(self._standstills.run(), name="standstills")
            ours = (self._report, self._broker.lasts, self._heap.freeze, self._lanes.beat)
            jobs = (follow, *ours, self._look_around, self._share_out)
            tasks = [side_tasks.create_task(job(), name=job.__name__) for job in jobs]
            await side_tasks.until(stop)
            self._lanes.hurry()
            await end_tasks(tasks)
            await self._say_goodbye()
            await self._lanes.stop()
            await self._broker.stop_taking()
            await self._broker.drain(self._config.grace_s)
            await self._lanes.leave()
        try:
            await done_within(LEAVING_S, self._publish_report(leaving=True))
        except (BrokerError, TimeoutError) as error:
            # Dispatchers notice after a while that its reports stay away.
            log.warning("report_lost", extra={"error": repr(error)})

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._config.report_every_s)
            try:
                await self._publish_report(leaving=False)
            except BrokerError as error:
                # Only these counts are lost; the next report brings the present state.
                log.warning("report_lost", extra={"error": str(error)})

    async def _publish_report(self, *, leaving: bool) -> None:
        whole = leaving or self._reports.whole()
        lanes = {name: lane for name, lane in self._lanes.serving.items() if name in self._lanes.known}
        budgets = {name: lane.budget for name, lane in lanes.items()}
        own_parts = {name: part for name, budget in budgets.items() if (part := budget.own_part) is not None}
        asked = [name for name in budgets if self._reports.wants_look(name, paused=name in self._pauses)]
        uses = await self._look_at({name: budgets[name] for name in asked})
        for name in {*uses, *(own_parts.keys() ^ self._alone)} & budgets.keys():
            metrics.SHARED.labels(name).set(name not in own_parts)
        self._alone = set(own_parts)
        lifted_ms = {name: budget.lifted_us // 1000 for name, budget in budgets.items()}
        knowledge = {name: lane.exchange.knowledge for name, lane in lanes.items()}
        unopened = {name: lane.error for name, lane in self._lanes.known.items() if name not in self._lanes.serving}
        news = self._reports.make(uses, self._pauses, lifted_ms, own_parts, knowledge, whole=whole)
        if not whole and not news and unopened == self._unopened and clock_s() < self._quiet_until_s:
            return
        self._unopened = unopened
        self._quiet_until_s = clock_s() + self._configured.dispatcher.silent_after_s * QUIET_PART
        report = Report(
            self.name,
            results.now_ms(),
            news,
            leaving=leaving,
            unopened=unopened,
            version=VERSION,
            ccxt=CCXT_VERSION,
            started_ms=self._started_ms,
            busy=self._busy.since_last(),
            whole=whole,
            places=self._lanes.places,
        )
        try:
            await self._broker.publish(encode(report), "", exchange=topology.REPORTS, persistent=False, mandatory=False)
        except BaseException:
            self._reports.list_all()
            raise

    async def _look_at(self, budgets: dict[str, Budget]) -> dict[str, dict[str, Use]]:
        """The used budget of lanes, by lane and bucket; nothing of a lane where Redis does not say in time."""
        uses: dict[str, dict[str, Use]] = {}
        found = await asyncio.gather(*(self._look(*each) for each in budgets.items()))
        for name, seen in zip(budgets, found, strict=True):
            self._pauses.pop(name, None)
            if name not in self._lanes.known:  # it was removed meanwhile
                continue
            uses[name], paused_s = seen or ({}, 0.0)
            for bucket, use in uses[name].items():
                metrics.USED.labels(name, bucket).set(use.used)
                metrics.EFFECTIVE.labels(name, bucket).set(use.effective)
                metrics.PAUSED.labels(name, bucket).set(max(use.paused_s, paused_s))
            if paused_s > 0:
                self._pauses[name] = LanePause(results.now_ms() + int(paused_s * 1000), budgets[name].pause_source)
        return uses

    async def _look(self, name: str, budget: Budget) -> tuple[dict[str, Use], float] | None:
        """A lane's used budget and the rest of its pause, seconds; None where Redis is away or slow: reports go out."""
        try:
            async with asyncio.timeout(self._config.report_every_s):
                seen = await budget.look()
        except store.AWAY as error:
            if name not in self._unknown:
                log.warning("budget_unknown", extra={"lane": name, "error": repr(error)})
                self._unknown.add(name)
            return None
        self._unknown.discard(name)
        return seen
