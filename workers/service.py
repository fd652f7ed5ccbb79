"""A worker's I/O: opens its lanes, takes their attempts, publishes results or hands back, reports."""

import asyncio
import functools
import logging
import os
import socket

import redis.exceptions
from msgspec import DecodeError
from msgspec.structs import replace
from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from schemas import answers, store, topology
from schemas.accounts import Secret
from schemas.answered import Answered
from schemas.broker import Broker
from schemas.config import Config, LaneConfig
from schemas.deliveries import Delivery, end_tasks
from schemas.errors import BrokerError
from schemas.messages import (
    RESULT_LIMIT_BYTES,
    Attempt,
    ErrorCode,
    Outcome,
    Report,
    Result,
    Try,
    decode_attempt,
    encode,
)
from schemas.status import ConfigurationStatus, ProcessStatus, ServedLane, WorkerStatus

from . import budget, executor, metrics, status
from .costs import SAME_LIMITS, check_limits
from .exchanges import CCXT_VERSION, Egress, LaneExchange, tls
from .markets import LOOK_EVERY_S, Markets
from .membership import BEAT_EVERY_S
from .reports import Reports
from .sharing import SharedBudget

log = logging.getLogger(__name__)


class Worker:
    """One worker process. More of them are more replicas, nothing else: the budgets are shared."""

    def __init__(self, config: Config) -> None:
        self._config = config.worker
        self._lanes_config = config.lanes
        self._limits = config.limits
        self._accounts = config.accounts
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._broker = Broker(config.broker, f"worker {self.name}", list(config.lanes))
        self._redis = store.connect(config.redis.url, timeout_s=config.redis.timeout_s)
        self._budgets: dict[str, SharedBudget] = {}
        self._egresses: dict[str, Egress] = {}
        self._lanes: dict[str, LaneExchange] = {}
        self._markets = Markets(self._redis, keep_s=2 * config.worker.renew_every_s)
        self._made: list[LaneExchange] = []
        self._errors: dict[str, str] = {}
        self._started_ms = answers.now_ms()
        self._reports = Reports()
        self._answered = Answered(self._redis)
        metrics.BLOCKED.set_function(lambda: self._broker.blocked)

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set, then finishes or hands back what it holds, and leaves."""
        try:
            self._make_lanes(self._made)
            await self._broker.start()
            await self._work(self._made, stop)
        finally:
            await self._broker.close()
            for lane in self._made:
                await lane.close()
            for egress in self._egresses.values():
                await egress.close()
            await self._answered.close()
            await self._redis.aclose()
        log.info("worker_left", extra={"worker": self.name})

    def status(self, configuration: ConfigurationStatus) -> WorkerStatus:
        """What ``/status`` says."""
        lanes = self._served()
        return WorkerStatus(
            process=ProcessStatus(
                service="workers",
                name=self.name,
                started_ms=self._started_ms,
                unready=status.unready(self._broker.connected, lanes),
                configuration=configuration,
                connected=self._broker.connected,
                connects=self._broker.connects,
            ),
            ccxt=CCXT_VERSION,
            redis=all(lane.budget == "shared" for lane in lanes),
            lanes=lanes,
        )

    def unready(self) -> str:
        """Why it does not take attempts yet."""
        return status.unready(self._broker.connected, self._served())

    async def ill(self) -> str:
        """Why only a fresh process would help."""
        starving = await self._broker.starving()
        return f"messages wait and don't come: {', '.join(starving)}" if starving else ""

    def _served(self) -> list[ServedLane]:
        in_flight = self._reports.in_flight()
        return [
            status.lane(
                lane.name,
                lane.exchange,
                markets=lane.markets_known,
                methods=lane.methods,
                in_flight=in_flight,
                errors=self._errors,
                own_part=self._budgets[lane.name].own_part,
            )
            for lane in self._made
        ]

    async def _work(self, lanes: list[LaneExchange], stop: asyncio.Event) -> None:
        """Works until told to stop. A side task that dies takes the process with it: a supervisor starts it afresh."""
        async with asyncio.TaskGroup() as side_tasks:
            tasks = [side_tasks.create_task(self._serve(lane), name=f"lane {lane.name}") for lane in lanes]
            tasks.append(side_tasks.create_task(self._report(), name="reports"))
            tasks.append(side_tasks.create_task(self._broker.lasts(), name="broker"))
            followers = [side_tasks.create_task(budget.follow(BEAT_EVERY_S)) for budget in self._budgets.values()]
            await stop.wait()
            await end_tasks(tasks)
            await self._broker.stop_taking()
            await self._broker.drain(self._config.grace_s)
            await end_tasks(followers)
        await asyncio.gather(*(budget.leave() for budget in self._budgets.values()))
        await self._publish_report(leaving=True)

    def _make_lanes(self, lanes: list[LaneExchange]) -> None:
        check_limits(self._limits, (lane.exchange for lane in self._lanes_config.values()))
        ssl_context = tls()
        credentials = {name: self._credentials(lane) for name, lane in self._lanes_config.items()}
        identities = {name: next((each.reveal() for each in of.values()), "") for name, of in credentials.items()}
        for name, lane in self._lanes_config.items():
            if lane.egress not in self._egresses:
                self._egresses[lane.egress] = Egress(ssl_context, lane.local_addr, lane.proxy)
            limits = SAME_LIMITS.get(lane.exchange, lane.exchange)
            account = identities[name]
            egresses = {each.egress for other, each in self._lanes_config.items() if identities[other] == account}
            self._budgets[name] = SharedBudget(
                self._redis,
                f"{limits}:{lane.egress}",
                account=account,
                elsewhere=bool(account) and len(egresses) > 1,
                live_reserve=lane.live_reserve,
            )
            lanes.append(self._make_lane(name, lane, credentials[name]))

    def _credentials(self, lane: LaneConfig) -> dict[str, Secret]:
        return self._accounts[lane.account].credentials(lane.account) if lane.account else {}

    def _make_lane(self, name: str, lane: LaneConfig, credentials: dict[str, Secret]) -> LaneExchange:
        return LaneExchange(
            name,
            lane,
            self._egresses[lane.egress],
            self._budgets[name],
            self._markets,
            self._config.http_timeout_s,
            self._limits.get(SAME_LIMITS.get(lane.exchange, lane.exchange)),
            credentials,
        )

    async def _serve(self, lane: LaneExchange) -> None:
        """Opens a lane, however long that takes, consumes its queues, and renews what it knows now and then."""

        def say(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            self._errors[lane.name] = repr(error)
            log.warning("lane_opens_not", extra={"lane": lane.name, "try": state.attempt_number, "error": repr(error)})

        async for attempt in AsyncRetrying(wait=wait_random_exponential(multiplier=0.5, max=30), before_sleep=say):
            with attempt:
                await lane.open()
        self._lanes[lane.name] = lane
        self._errors.pop(lane.name, None)
        self._reports.add_lane(lane.name, lane.methods, lane.answering, lane.tallies)
        metrics.LANE_OPEN.labels(lane.name).set(1)
        live = max(1, self._config.in_flight // len(self._lanes_config))
        for bulk, prefetch in ((False, live), (True, max(1, live // 4))):
            handler = functools.partial(self._on_attempt, lane)
            await self._broker.subscribe(topology.work_name(lane.name, bulk=bulk), handler, prefetch=prefetch)
        log.info("lane_open", extra={"lane": lane.name, "methods": len(lane.methods)})
        while True:
            await asyncio.sleep(min(self._config.renew_every_s, LOOK_EVERY_S))
            try:
                await lane.open(max_age_s=self._config.renew_every_s)
            except Exception as error:  # what it knows stays in use, and the lane's health shows in its attempts
                log.warning("lane_renews_not", extra={"lane": lane.name, "error": repr(error)})

    async def _on_attempt(self, lane: LaneExchange, delivery: Delivery) -> None:
        try:
            attempt = decode_attempt(delivery.body)
        except DecodeError as error:
            metrics.UNREADABLE.inc()
            await answers.bury(self._broker, delivery, ErrorCode.UNREADABLE, f"not an attempt: {error}")
            await delivery.ack()
            return
        if delivery.repeated:
            attempt = replace(attempt, repeated=True)
        if attempt.contested and await self._answered.by_another(attempt):
            self._drop_copy(attempt)
            await delivery.ack()
            return
        self._reports.begin(lane.name)
        try:
            ended = await executor.run(lane, attempt, self._config)
            item, result, body = _answer(attempt, lane, ended)
            seen = replace(item, outcome=Outcome.FAILED, code=ErrorCode.MAINTENANCE) if ended.in_maintenance else item
            self._reports.end(seen, attempt.request, ended.http_calls, ended.budget_ms)
            if result is not None and not attempt.probe:
                await self._publish(attempt, result, body)
            elif result is None and not (attempt.hedge or attempt.probe):
                await self._hand_back(attempt, item)
        finally:
            self._reports.leave(lane.name)
        await delivery.ack()

    async def _publish(self, attempt: Attempt, result: Result, body: bytes | None) -> None:
        """Publishes a result, unless another attempt at the request was first."""
        if attempt.contested:
            first = await self._answered.claim(attempt)
            if first is False or (first is None and attempt.hedge):
                self._drop_copy(attempt)
                return
        await answers.publish(self._broker, attempt, result, body)
        self._answered.note(attempt)

    @staticmethod
    def _drop_copy(attempt: Attempt) -> None:
        metrics.COPIES.labels(attempt.lane).inc()
        log.info("copy_dropped", extra={"request_id": attempt.request.id, "lane": attempt.lane})

    async def _hand_back(self, attempt: Attempt, item: Try) -> None:
        """Gives the attempt back to the dispatchers; returns when the broker has it."""
        log.info(
            "attempt_handed_back",
            extra={
                "request_id": attempt.request.id,
                "lane": item.lane,
                "outcome": item.outcome,
                "code": item.code,
                "why": item.message,
            },
        )
        await self._broker.publish(encode(attempt.handed_back(item)), topology.RETURNED)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._config.report_every_s)
            try:
                await self._publish_report(leaving=False)
            except BrokerError as error:
                # The next report says the same: they carry no more than the dispatchers' picture of now.
                log.warning("report_lost", extra={"error": str(error)})

    async def _publish_report(self, *, leaving: bool) -> None:
        uses: dict[str, dict[str, budget.Use]] = {}
        paused_until_ms: dict[str, int] = {}
        names = list(self._lanes)  # a lane may open meanwhile
        own_parts = {name: part for name in names if (part := self._budgets[name].own_part) is not None}
        for name in names:
            metrics.SHARED.labels(name).set(name not in own_parts)
        for name, seen in zip(names, await asyncio.gather(*map(self._look, names)), strict=True):
            if seen is None:
                continue
            uses[name], paused_s = seen
            for bucket, use in uses[name].items():
                metrics.USED.labels(name, bucket).set(use.used)
                metrics.EFFECTIVE.labels(name, bucket).set(use.effective)
                metrics.PAUSED.labels(name, bucket).set(max(use.paused_s, paused_s))
            if paused_s > 0:
                paused_until_ms[name] = answers.now_ms() + int(paused_s * 1000)
        knowledge = {name: self._lanes[name].knowledge for name in names}
        report = Report(
            self.name,
            answers.now_ms(),
            self._reports.make(uses, paused_until_ms, own_parts, knowledge),
            leaving=leaving,
        )
        await self._broker.publish(encode(report), "", exchange=topology.REPORTS, persistent=False, mandatory=False)

    async def _look(self, name: str) -> tuple[dict[str, budget.Use], float] | None:
        """A lane's used budget and the rest of its pause; None where Redis is too slow: the heartbeat must go out."""
        try:
            async with asyncio.timeout(self._config.report_every_s):
                return await self._budgets[name].usage(), await self._budgets[name].paused()
        except (redis.exceptions.RedisError, OSError) as error:
            log.warning("budget_unknown", extra={"lane": name, "error": repr(error)})
            return None


def _answer(attempt: Attempt, lane: LaneExchange, ended: executor.Ended) -> tuple[Try, Result | None, bytes | None]:
    """What is published of an attempt: a result, already encoded if it carries data, or None to hand it back.

    Data that can't be sent is no success, so the outcome may change.
    """
    item = ended.item
    if item.outcome is Outcome.OK:
        result = Result(
            id=attempt.request.id,
            ok=True,
            method=attempt.request.method,
            exchange=lane.exchange,
            lane=lane.name,
            data=ended.data,
            attempts=[*attempt.tries, item],
            received_ms=attempt.received_ms,
            completed_ms=answers.now_ms(),
            results=attempt.results,
        )
        try:
            body = encode(result, attempt.content_type)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            text = f"the exchange's data can't be encoded: {error}"
            item = replace(item, outcome=Outcome.FAILED, code=ErrorCode.BAD_RESPONSE, message=text)
        else:
            if len(body) <= RESULT_LIMIT_BYTES:
                return item, result, body
            text = f"the result has {len(body)} bytes, more than {RESULT_LIMIT_BYTES}: ask for less at once"
            item = replace(item, outcome=Outcome.REJECTED, code=ErrorCode.TOO_LARGE, message=text)
    if item.outcome is Outcome.REJECTED:
        assert item.code is not None
        return item, answers.failure(attempt, item.code, item.message, item), None
    return item, None, None
