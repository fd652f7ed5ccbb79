"""An attempt's way through a worker: taken from its lane's queue, run, answered or handed back, then acknowledged.

::

    fleet.work.<lane> ─▶ take ─▶ skip? ─▶ run ─┬─ data, or rejected ────▶ answer once ─▶ reply_to or fleet.results
                                               └─ failed or throttled ─▶ hand back ──▶ fleet.returned

None of it passes through `service.py`. `Once` says which attempts need not go on, as their request was answered, and
publishes each answer once.
"""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any, Final

from msgspec import DecodeError, Struct
from msgspec.structs import replace

from schemas import topology
from schemas.config import WorkerConfig
from schemas.messages import RESULT_LIMIT_BYTES, Attempt, Bound, ErrorCode, Outcome, Result, Try, decode_attempt, encode
from schemas.runtime import results
from schemas.runtime.broker import Broker
from schemas.runtime.clock import clock_s
from schemas.runtime.deliveries import Delivery
from schemas.runtime.once import Once
from schemas.runtime.outbox import Outbox

from . import metrics
from .exchange.call import Call
from .exchange.errors import NoBudget, judge
from .exchange.lane_exchange import LaneExchange
from .keeping import Ending, Keeping
from .lanes import Lane
from .reports import Reports

log = logging.getLogger(__name__)

# An attempt for a lane that was removed may go there again after this time. By then its dispatcher knows better.
REMOVED_PAUSE_MS: Final = 1_000
# A call ends at its time-out, or little later where Redis does not answer. If it goes on all the same, which is a fault
# of ours, the attempt ends after this time more.
HUNG_AFTER_S: Final = 10.0
# The longest wait of a bulk attempt for budget. To wait here costs nothing; an attempt that is handed back goes round.
BULK_WAIT_S: Final = 30.0
# ccxt's words, in a status, for an exchange that answers but does not work.
_CLOSED: Final = ("maintenance", "shutdown")


class Ended(Struct, frozen=True):
    """How an attempt ended.

    Args:
        item: the try, as the result shows it.
        data: the ccxt method's return value, None unless the outcome is ok.
        http_calls: how many HTTP calls it sent.
        budget_ms: how long the budget that they took takes to come back (`Call.budget_s`).
        there_s: when its answer began to come, or its error was there, by the monotonic clock.
        in_maintenance: the exchange was asked for its status, and is in maintenance.
        of_connection: it failed for a reason that has nothing to do with what was asked (`Verdict.of_connection`).
        bound: the limit that had no room for it.
        sent_s: when its first HTTP call was sent, by the same; None if none was.
        still_s: for how long this process stood still while a call of it was out (`Seen.still_s`).
        refused: its data is an exchange's answer that says what is wrong with an HTTP call (`Call.refused`).
    """

    item: Try
    data: Any
    http_calls: int
    budget_ms: float
    there_s: float
    in_maintenance: bool = False
    of_connection: bool = False
    bound: Bound | None = None
    sent_s: float | None = None
    still_s: float = 0.0
    refused: bool = False


class Attempts:
    """Handles the attempts of all lanes.

    Args:
        broker: RabbitMQ.
        once: publishes each answer once.
        outbox: publishes results.
        reports: counts attempts.
        keeping: keeps answers for equal requests.
        serving: finds the open lane with a name; None if there is none.
        config: how long an attempt may wait for budget.
    """

    def __init__(
        self,
        broker: Broker,
        once: Once,
        outbox: Outbox,
        reports: Reports,
        keeping: Keeping,
        serving: Callable[[str], Lane | None],
        config: WorkerConfig,
    ) -> None:
        self._broker = broker
        self._once = once
        self._outbox = outbox
        self._reports = reports
        self._keeping = keeping
        self._serving = serving
        self._config = config

    def configure(self, config: WorkerConfig) -> None:
        """Takes other settings; attempts in progress keep theirs."""
        self._config = config

    async def take(self, name: str, delivery: Delivery) -> None:
        """Handles a message from the queue of the lane with this name."""
        attempt = await self._read(name, delivery)
        if attempt is None:
            pass
        elif await self._once.skip(attempt):
            self._keeping.drop(attempt)
            _drop_copy(attempt)
        elif (lane := self._serving(name)) is None:
            retry_at_ms = results.now_ms() + REMOVED_PAUSE_MS
            item = Try(name, Outcome.THROTTLED, ErrorCode.EXPIRED, f"{name} was removed", retry_at_ms=retry_at_ms)
            await self._hand_back(attempt, item)
        else:
            await self._outbox.room()
            await self._run(lane, attempt, delivery)
        await delivery.ack()

    async def _read(self, name: str, delivery: Delivery) -> Attempt | None:
        """The attempt in a message; None for a message without one, which goes to `fleet.dead`."""
        try:
            attempt = decode_attempt(delivery.body)
        except DecodeError as error:
            metrics.UNREADABLE.inc()
            await results.bury(self._broker, delivery, ErrorCode.UNREADABLE, f"not an attempt: {error}")
            return None
        if attempt.lane != name:  # no dispatcher sent it so: its text must not become a label of metrics
            attempt = replace(attempt, lane=name)
        return replace(attempt, repeated=True) if delivery.repeated else attempt

    async def _run(self, lane: Lane, attempt: Attempt, delivery: Delivery) -> None:
        ended, item, ready = await self._run_counted(lane, attempt)
        if delivery.repeated:  # its connection may be gone by now, and another worker may have answered it
            attempt = replace(attempt, repeated=True)
        if ready is None:
            await self._hand_back(attempt, item, ended.bound)
            return
        if attempt.share:
            config, size_bytes = lane.exchange.config, len(ready.body)
            times = ended.sent_s, ended.there_s
            self._keeping.put(Ending(attempt, config, item, ended.data, *times, size_bytes, refused=ended.refused))
        publish = functools.partial(self._outbox.put, ready, delivery)
        if not attempt.probe and not await self._once.answer(attempt, publish):
            _drop_copy(attempt)

    async def _run_counted(self, lane: Lane, attempt: Attempt) -> tuple[Ended, Try, results.Ready | None]:
        """Runs an attempt and counts it. It leaves the lane before anything is published."""
        name, bulk = attempt.lane, attempt.request.bulk
        self._reports.begin(name, bulk=bulk)
        try:
            with lane.attempts.one():
                ended = await run(lane.exchange, attempt, self._config)
            item, result, body = _result(attempt, lane.exchange, ended)
            seen = replace(item, outcome=Outcome.FAILED, code=ErrorCode.MAINTENANCE) if ended.in_maintenance else item
            of_connection = ended.of_connection or ended.in_maintenance
            self._reports.end(
                seen, attempt, ended.http_calls, ended.budget_ms, of_connection=of_connection, still_s=ended.still_s
            )
        finally:
            self._reports.leave(name, bulk=bulk)
        return ended, item, None if result is None else results.ready(attempt, result, body)

    async def _hand_back(self, attempt: Attempt, item: Try, bound: Bound | None = None) -> None:
        """Publishes an attempt for the dispatchers, unless its request needs it no more."""
        if await self._once.dispensable(attempt):
            return
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
        await self._broker.publish(encode(attempt.handed_back(item, bound)), topology.RETURNED)


def _drop_copy(attempt: Attempt) -> None:
    metrics.COPIES.labels(attempt.lane).inc()
    log.info("copy_dropped", extra={"request_id": attempt.request.id, "lane": attempt.lane})


async def run(lane: LaneExchange, attempt: Attempt, config: WorkerConfig) -> Ended:
    """Runs an attempt within the budget and until its deadline; every error becomes an outcome.

    Args:
        lane: where it was sent.
        attempt: the attempt.
        config: how long a live one may wait for budget here.

    Raises:
        asyncio.CancelledError: the worker's grace is over.
    """
    request = attempt.request
    max_wait_s = BULK_WAIT_S if request.bulk else config.max_wait_s
    if attempt.max_wait_ms is not None:
        max_wait_s = min(max_wait_s, attempt.max_wait_ms / 1000)
    timeout_s = (attempt.deadline_ms - results.now_ms()) / 1000
    if attempt.timeout_ms is not None:
        timeout_s = min(timeout_s, attempt.timeout_ms / 1000)
    call = Call(
        lane.exchange,
        max_wait_s=max_wait_s,
        timeout_s=timeout_s,
        bulk=request.bulk,
        account=request.account,
    )
    hung = asyncio.timeout(max(timeout_s, 0.0) + HUNG_AFTER_S)
    try:
        async with hung:
            if request.http is None:
                data = await lane.call(request.method, request.args, call)
            else:
                data = await lane.call_http(request.http, call)
        in_maintenance = request.method == "fetch_status" and data.get("status") in _CLOSED
    except Exception as error:  # `judge` has a verdict for every class
        if hung.expired():
            call.stood(call.heard, lane.still_s, call.started_s, clock_s())
        if hung.expired() and not call.heard.unread:
            log.exception("attempt_hung", extra={"request_id": request.id, "lane": lane.name})
        verdict = judge(error, call, lane.redactor.hide)
        retry_at_ms = results.now_ms() + int(verdict.pause_s * 1000) if verdict.pause_s else None
        item = Try(lane.name, verdict.outcome, verdict.code, verdict.message, retry_at_ms=retry_at_ms, **_times(call))
        bound = lane.bound(error) if isinstance(error, NoBudget) else None
        return Ended(
            item,
            None,
            call.http_calls,
            call.budget_s * 1000,
            call.there_s or clock_s(),
            of_connection=verdict.of_connection,
            bound=bound,
            still_s=call.still_s,
        )
    item = Try(lane.name, Outcome.OK, **_times(call))
    spent = call.http_calls, call.budget_s * 1000
    there_s = call.there_s or clock_s()
    seen: dict[str, Any] = {"sent_s": call.sent_s, "still_s": call.still_s, "refused": call.refused}
    return Ended(item, data, *spent, there_s, in_maintenance, **seen)


def _times(call: Call) -> dict[str, Any]:
    return {"waited_ms": round(call.waited_s * 1000, 3), "exchange_ms": round(call.exchange_s * 1000, 3)}


def _result(attempt: Attempt, lane: LaneExchange, ended: Ended) -> tuple[Try, Result | None, bytes | None]:
    """An attempt's try and its result, already encoded if it has data; no result for one that is to be handed back.

    Data that can't be encoded, or is too large to be sent, is no success: then the try's outcome changes.
    """
    item = ended.item
    if item.outcome is Outcome.OK:
        result = Result(
            id=attempt.request.id,
            ok=True,
            method=attempt.request.method,
            exchange=lane.known_as,
            lane=lane.name,
            data=ended.data,
            attempts=[*attempt.tries, item],
            received_ms=attempt.received_ms,
            completed_ms=results.now_ms(),
            results=attempt.results,
        )
        try:
            body = encode(result, attempt.content_type)
            if attempt.request.account and lane.redactor.suspects(body):
                result = replace(result, data=lane.redactor.hide_in(result.data))
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
        return item, results.failure(attempt, item.code, item.message, item), None
    return item, None, None
