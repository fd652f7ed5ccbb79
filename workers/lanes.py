"""The lanes of a worker: opened, refreshed, rebuilt when their configuration changes, drained when they are removed.

An attempt stays on the lane where it began. A lane whose configuration changed serves on until the new one is open.
Then new attempts go to that one, and the old one is closed after its last attempt. A lane that was removed runs no new
attempt, but its queue is consumed until the last one has ended, and attempts that come meanwhile are handed back. So
the queue has a consumer as long as a worker holds a message of it, and no dispatcher deletes it.
"""

import asyncio
import functools
import hashlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeAlias

import redis.asyncio
from msgspec import Struct
from msgspec.structs import replace
from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from schemas import topology
from schemas.accounts import Secret
from schemas.config import Config, LaneConfig, LimitsConfig
from schemas.errors import ConfigError
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery
from schemas.runtime.standstill import StillFor, unknown
from schemas.runtime.tasks import SideTasks, UnderWay, end_tasks

from . import metrics
from .budget.budget import Budget
from .budget.ledger import Ledger
from .budget.membership import BEAT_EVERY_S, Membership
from .budget.rounds import Rounds
from .exchange import settings as ccxt_settings
from .exchange.bounds import Bounds
from .exchange.egress import Egress, tls
from .exchange.errors import NoBudget
from .exchange.lane_exchange import LaneExchange, Setup
from .exchange.markets import LOOK_EVERY_S, Markets
from .heap import Heap
from .limits.tables import shipped
from .reports import Reports
from .spread import Spread

log = logging.getLogger(__name__)

# So many lanes are opened at a time: each asks the exchange and Redis, and a thousand would wait for each other.
OPENING: Final = 32

OnAttempt: TypeAlias = Callable[[str, Delivery], Coroutine[Any, Any, None]]
"""Handles a delivery from the queue of the lane with this name."""


class Settings(Struct, frozen=True):
    """What a lane is made from. If any of it changes, the lane is made anew."""

    lane: LaneConfig
    limits: LimitsConfig | None
    http_timeout_s: float
    account: str  # a digest of its secrets; empty for none
    elsewhere: bool  # the account is used from other addresses too


class Lane:
    """One lane with one configuration.

    Attributes:
        exchange: runs its attempts.
        budget: what it may send.
        settings: what it was made from.
        error: why it could not be opened; empty if it is open, or nothing has failed yet.
        attempts: those that run on it.
    """

    def __init__(self, exchange: LaneExchange, budget: Budget, settings: Settings) -> None:
        self.exchange = exchange
        self.budget = budget
        self.settings = settings
        self.error = ""
        self.follower: asyncio.Task[None] | None = None
        self.attempts = UnderWay()

    async def leave(self) -> None:
        """Gives up this worker's part of the budget."""
        if self.follower is not None:
            await end_tasks([self.follower])
            await self.budget.leave()


class Lanes:
    """All lanes of a worker.

    Args:
        config: the configuration.
        client: Redis.
        broker: RabbitMQ.
        reports: reports the lanes that are open.
        on_attempt: handles their deliveries.
        heap: is told of what lasts.
        spread: which of the configured lanes are served.
        still_s: for how long this process stood still.

    Attributes:
        known: the configured lanes that are served, by name.
        serving: the open lanes, by name; of a lane that changed, the old one until the new one is open.
    """

    def __init__(
        self,
        config: Config,
        client: redis.asyncio.Redis,
        broker: Broker,
        reports: Reports,
        on_attempt: OnAttempt,
        heap: Heap,
        spread: Spread,
        still_s: StillFor = unknown,
    ) -> None:
        self._config = config
        self._spread = spread
        self._still_s = still_s
        self._redis = client
        self._broker = broker
        self._reports = reports
        self._on_attempt = on_attempt
        self._heap = heap
        self._markets = Markets(client, keep_s=2 * config.worker.renew_every_s, on_new=heap.grew)
        self._bounds = Bounds(config.worker)
        metrics.HELD.set_function(lambda: self._bounds.held)
        self._tls = tls()
        self._egresses: dict[str, Egress] = {}
        self._made: set[Lane] = set()
        self._rounds = Rounds()
        self._opening = asyncio.Semaphore(OPENING)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changes: set[asyncio.Task[None]] = set()  # what changes of the configuration began
        self.known: dict[str, Lane] = {}
        self.serving: dict[str, Lane] = {}

    @property
    def places(self) -> int:
        """How many live attempts of one lane are held at most."""
        return max(1, self._config.worker.in_flight // max(1, len(self.known)))

    async def plan(self, config: Config) -> dict[str, Lane]:
        """Makes the lanes that are new or changed in a configuration; `apply` starts them, `discard` drops them.

        Raises:
            ConfigError: one of them can't be made; then none is.
        """
        ccxt_settings.check(config)
        part = self._spread.of(config.lanes)
        # The secrets of others' accounts need not be there.
        used = {account: config.accounts[account] for name in part if (account := config.lanes[name].account)}
        secrets = {account: each.credentials(account) for account, each in used.items()}
        credentials = {name: secrets.get(lane.account or "", {}) for name, lane in config.lanes.items()}
        accounts = {name: next((each.reveal() for each in of.values()), "") for name, of in credentials.items()}
        made: dict[str, Lane] = {}
        for name, lane in ((name, config.lanes[name]) for name in part):
            egresses = {each.egress for other, each in config.lanes.items() if accounts[other] == accounts[name]}
            settings = Settings(
                replace(lane, weight=1.0),  # only dispatchers use it
                config.limits.get(shipped().limits_of(lane.exchange)),
                config.worker.http_timeout_s,
                _digest(credentials[name]),
                elsewhere=bool(accounts[name]) and len(egresses) > 1,
            )
            if name not in self.known or self.known[name].settings != settings:
                try:
                    made[name] = self._make(name, settings, accounts[name], credentials[name])
                except ConfigError:
                    await self.discard(made)
                    raise
                await asyncio.sleep(0)  # each takes milliseconds, and there may be a thousand
        return made

    def apply(self, config: Config, made: dict[str, Lane], group: SideTasks) -> None:
        """Applies a configuration and what was planned for it, in tasks of the group."""
        self._config = config
        self._bounds.configure(config.worker)
        left = self.known.keys() - self._spread.of(config.lanes)
        for name in left & config.lanes.keys():
            lane, task = self.known.pop(name), self._tasks.pop(name)
            self._reports.drop_lane(name)
            metrics.forget(name)
            self._start(group, self._hand_over(name, task, lane))
            log.info("lane_handed_over", extra={"lane": name})
        for name in left - config.lanes.keys():
            lanes = {self.known.pop(name), *([self.serving.pop(name)] if name in self.serving else [])}
            self._reports.drop_lane(name)
            metrics.forget(name)
            self._start(group, self._remove(name, self._tasks.pop(name), lanes))
            log.info("lane_removed", extra={"lane": name})
        for name, lane in made.items():
            before = self.known.get(name)
            self.known[name] = lane
            if before is not None:
                self._start(group, self._supersede(name, before, self._tasks.pop(name)))
            self._tasks[name] = group.create_task(self._serve(name, lane, group), name=f"lane {name}")
        self._start(group, self._resize())

    async def beat(self) -> None:
        """Beats for the budgets of lanes at rest; never returns."""
        await self._rounds.run(BEAT_EVERY_S)

    async def discard(self, made: dict[str, Lane]) -> None:
        """Closes planned lanes that are not applied."""
        for lane in made.values():
            await self._close(lane)

    def hurry(self) -> None:
        """Shortens the waits of all attempts; the worker is about to stop."""
        for lane in self._made:
            lane.exchange.hurry()

    async def stop(self) -> None:
        """Stops opening, refreshing and removing lanes; open lanes still run attempts."""
        await end_tasks([*self._tasks.values(), *self._changes])

    async def leave(self) -> None:
        """Gives up this worker's parts of all budgets; nothing may run any more."""
        await asyncio.gather(*(lane.leave() for lane in self._made))

    async def close(self) -> None:
        """Closes all connections."""
        for lane in list(self._made):
            await self._close(lane)
        for egress in self._egresses.values():
            await egress.close()

    def _make(self, name: str, settings: Settings, account: str, credentials: Mapping[str, Secret]) -> Lane:
        lane = settings.lane
        if lane.egress not in self._egresses:
            self._egresses[lane.egress] = Egress(self._tls, lane.local_addr, lane.proxy)
        scope = f"{ccxt_settings.budget_of(lane)}:{lane.egress}"
        ledger = Ledger(
            self._redis,
            scope,
            account=account,
            live_reserve=lane.live_reserve,
            member=Membership(),
            still_s=self._still_s,
        )
        budget = Budget(ledger, elsewhere=settings.elsewhere)
        setup = Setup(
            lane=lane, http_timeout_s=settings.http_timeout_s, limits=settings.limits, credentials=credentials
        )
        exchange = LaneExchange(name, setup, self._egresses[lane.egress], budget, self._markets, self._bounds)
        made = Lane(exchange, budget, settings)
        self._made.add(made)
        return made

    async def _serve(self, name: str, lane: Lane, group: SideTasks) -> None:
        """Opens a lane, however long that takes, consumes its queues, and refreshes its markets and clock."""
        if (guess := lane.exchange.costs.guess) is not None:
            pace_ms = round(guess.window_s / guess.amount * 1000, 3)
            log.warning("limits_guessed", extra={"lane": name, "exchange": lane.exchange.exchange, "pace_ms": pace_ms})
        await self._open(name, lane, group)
        if self.known.get(name) is not lane:  # a cancellation was swallowed
            return
        old = self.serving.get(name)
        self.serving[name] = lane
        lane.error = ""
        exchange = lane.exchange
        self._reports.add_lane(name, exchange.methods, exchange.answering, exchange.tallies)
        metrics.LANE_OPEN.labels(name).set(1)
        if old is not None:
            self._start(group, self._retire(old))
        for bulk in (False, True):
            queue = topology.work_name(name, bulk=bulk)
            if not self._broker.subscribed(queue):
                handler = functools.partial(self._on_attempt, name)
                await self._broker.subscribe(queue, handler, prefetch=self._prefetch(bulk=bulk))
        self._heap.grew()
        log.info("lane_open", extra={"lane": name, "methods": len(exchange.methods)})
        while True:
            renew_s = self._config.worker.renew_every_s
            try:
                await exchange.refresh(every_s=min(renew_s, LOOK_EVERY_S), max_age_s=renew_s)
            except Exception as error:  # the old markets stay in use, and attempts show the lane's health
                log.warning("markets_refresh_failed", extra={"lane": name, "error": exchange.error_text(error)})

    async def _open(self, name: str, lane: Lane, group: SideTasks) -> None:
        def note(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            text = "" if error is None else lane.exchange.error_text(error)
            if isinstance(error, NoBudget):  # the exchange was not called: others use its budget, or we are busy
                log.info("lane_open_throttled", extra={"lane": name, "why": text})
                # The error of an earlier try says more than that this one had no budget.
                lane.error = lane.error if lane.error and error.reason in ("budget", "busy") else text
            else:
                lane.error = text
                log.warning("lane_open_failed", extra={"lane": name, "try": state.attempt_number, "error": lane.error})

        async for attempt in AsyncRetrying(wait=wait_random_exponential(multiplier=0.5, max=30), before_sleep=note):
            with attempt:
                async with self._opening:
                    if lane.follower is None:
                        follow = lane.budget.follow(BEAT_EVERY_S, self._rounds)
                        lane.follower = group.create_task(follow, name=f"budget {name}")
                    await lane.exchange.open()

    def _prefetch(self, *, bulk: bool) -> int:
        return max(1, self.places // 4) if bulk else self.places

    async def _resize(self) -> None:
        for name in list(self.serving):
            for bulk in (False, True):
                await self._broker.resize(topology.work_name(name, bulk=bulk), self._prefetch(bulk=bulk))

    async def _remove(self, name: str, task: asyncio.Task[None], lanes: set[Lane]) -> None:
        await end_tasks([task])
        for lane in lanes:
            await lane.attempts.none()
        await self._stop_consuming(name)
        for lane in lanes:
            await self._retire(lane)

    async def _hand_over(self, name: str, task: asyncio.Task[None], lane: Lane) -> None:
        """Others serve it by now: takes nothing more from its queues, and closes it after its last attempt."""
        await end_tasks([task])
        if self.serving.get(name) is not lane:  # it never opened
            await self._retire(lane)
        await self._stop_consuming(name)
        if name not in self.known and (served := self.serving.pop(name, None)):
            await self._retire(served)  # otherwise it is served again, and the next one to open has this one retired

    async def _stop_consuming(self, name: str) -> None:
        """Takes nothing more from a lane's queues, and returns when all that was taken is settled."""
        if name not in self.known:  # it may be served again
            # Both at once: a lane of the same name that opens meanwhile consumes what is not consumed.
            queues = (topology.work_name(name, bulk=bulk) for bulk in (False, True))
            await asyncio.gather(*map(self._broker.unsubscribe, queues))

    async def _supersede(self, name: str, lane: Lane, task: asyncio.Task[None]) -> None:
        await end_tasks([task])
        if self.serving.get(name) is not lane:  # it never opened; otherwise it serves until the next one is open
            await self._retire(lane)

    async def _retire(self, lane: Lane) -> None:
        """Closes a lane that takes no new attempts, after its last one."""
        await lane.attempts.none()
        await lane.leave()
        await self._close(lane)

    def _start(self, group: SideTasks, job: Coroutine[Any, Any, None]) -> None:
        task = group.create_task(job)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def _close(self, lane: Lane) -> None:
        self._made.discard(lane)
        await lane.exchange.close()
        egress = lane.settings.lane.egress
        if not any(other.settings.lane.egress == egress for other in self._made) and egress in self._egresses:
            await self._egresses.pop(egress).close()


def _digest(credentials: Mapping[str, Secret]) -> str:
    """A hash of secrets, by which to see that they changed."""
    values = "\0".join(f"{name}\0{secret.reveal()}" for name, secret in sorted(credentials.items()))
    return hashlib.sha256(values.encode()).hexdigest() if credentials else ""
