"""A request's way through the dispatcher: taken from a queue, decided on, published, then acknowledged.

::

    fleet.requests ──▶ on_request ─────┐             ┌─ Send ─▶ fleet.work.<lane>, perhaps a hedge later
    fleet.returned ──▶ on_returned ────┼─▶ advance ──┼─ Wait ─▶ fleet.delay.*
    fleet.work.<lane> ▶ on_taken_back ─┘             └─ End ──▶ reply_to or fleet.results

None of it passes through `service.py`, which only subscribes these handlers. `router.py` decides. `Once` says which
attempts need not go on, as their request was answered, and publishes each answer once. Before `advance`, `sharing.py`
says whether a request with `max_age_ms` takes the answer to an equal one.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from typing import Final

from msgspec import DecodeError
from msgspec.structs import replace

from schemas import addresses, topology
from schemas.config import DispatcherConfig
from schemas.errors import InvalidMessage, Refused, Unroutable
from schemas.messages import RESULT_LIMIT_BYTES, Attempt, ErrorCode, Outcome, Try, decode_attempt, encode
from schemas.runtime import results
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery
from schemas.runtime.once import Answered, Once
from schemas.runtime.outbox import Outbox
from schemas.runtime.room import Room

from . import intake, metrics
from .hedges import Hedges
from .router import End, Router, Send, Wait
from .sharing import Sharing
from .verdicts import Alone, Failed, Given, Later, Leads

log = logging.getLogger(__name__)

# A request that can't wait in the dispatcher for another one's answer comes again after this time.
LATER_MS: Final = 1_000
# Shared answers that are on their way to those who asked: so many at once, with so many bytes.
GIVING: Final = 500
GIVING_BYTES: Final = 64 * 2**20
# An attempt that its lane's queue refused, or that expired there, may go to that lane again after this time.
UNSENT_PAUSE_MS: Final = 1_000


class Requests:
    """Handles the messages of all queues that requests come from.

    Args:
        broker: RabbitMQ.
        router: decides.
        marks: of the requests that were answered.
        outbox: publishes results: errors, and shared answers.
        sharing: the requests that take another one's answer.
        config: which methods are allowed, and the default deadline.
        clock: that of the lanes' health.

    Attributes:
        hedges: second attempts that are planned.
    """

    def __init__(
        self,
        broker: Broker,
        router: Router,
        marks: Answered,
        outbox: Outbox,
        sharing: Sharing,
        config: DispatcherConfig,
        clock: Callable[[], float],
    ) -> None:
        self._broker = broker
        self._router = router
        self._once = Once(marks)
        self._outbox = outbox
        self._sharing = sharing
        self._giving = Room(GIVING, GIVING_BYTES)
        self._config = config
        self._clock = clock
        self.hedges = Hedges(marks, self._hedge)

    def configure(self, config: DispatcherConfig) -> None:
        """Takes other settings; requests in progress go on."""
        self._config = config

    async def on_request(self, delivery: Delivery) -> None:
        """Handles a message of `fleet.requests` or `fleet.requests.bulk`."""
        started_s = time.perf_counter()
        metrics.REQUESTS.inc()
        properties, body = delivery.properties, delivery.body
        attempt = envelope = intake.envelope(properties, body, results.now_ms())
        try:
            attempt = intake.read(envelope, body, self._config.timeout_s, properties.content_encoding or "")
            intake.check(attempt, self._config.methods)
            attempt = replace(attempt, repeated=delivery.repeated, copy=delivery.copy)
        except InvalidMessage as error:
            await self._refuse(intake.named(envelope, body) if attempt is envelope else attempt, error, delivery)
        else:
            parts = self._router.fan_out(attempt)
            await asyncio.gather(*(self._share(part, delivery, rested=False, kept=False) for part in parts))
        await delivery.ack()
        if attempt.request.max_age_ms is None:  # it may have waited for another one's answer
            metrics.DECISION.observe(time.perf_counter() - started_s)

    async def on_returned(self, delivery: Delivery) -> None:
        """Handles a message of `fleet.returned`: an attempt that failed, expired in a work queue, or has waited."""
        started_s = time.perf_counter()
        attempt = await self._read(delivery)
        if attempt is not None:
            # It may have expired in a work queue after a worker that lost its connection had answered it.
            if delivery.repeated or (delivery.death_reason and attempt.lane):
                attempt = replace(attempt, repeated=True)
            await self._bring_back(attempt, delivery)
        await delivery.ack()
        if attempt is None or attempt.request.max_age_ms is None:
            metrics.DECISION.observe(time.perf_counter() - started_s)

    async def on_taken_back(self, delivery: Delivery) -> None:
        """Handles an attempt that was taken back from the queue of a lane that is down or was removed."""
        attempt = await self._read(delivery)
        if attempt is not None and delivery.repeated:
            attempt = replace(attempt, repeated=True)
        if attempt is not None and not await self._once.dispensable(attempt):
            why = "was set aside before a worker took it" if attempt.lane in self._router.health else "was removed"
            attempt = _unsent(attempt, ErrorCode.EXPIRED, f"{attempt.lane} {why}")
            await self._advance(self._router.less_removed(attempt), delivery, rested=False)
        await delivery.ack()

    async def send(self, attempt: Attempt) -> bytes:
        """Publishes an attempt to its lane; returns the message's body.

        Raises:
            Refused: the lane's queue is full.
            Unroutable: the lane has no queue, as it was removed.
            BrokerLost: the broker did not confirm it in time.
        """
        key, body = topology.work_key(attempt.lane, bulk=attempt.request.bulk), encode(attempt)
        await self._broker.publish(body, key, exchange=topology.WORK, retry_refused=False)
        metrics.SENT.labels(attempt.lane).inc()
        metrics.TRIALS.labels(attempt.lane).inc(attempt.trial)
        return body

    async def _read(self, delivery: Delivery) -> Attempt | None:
        """The attempt in a message; None for a message without one, which goes to `fleet.dead`."""
        try:
            return decode_attempt(delivery.body)
        except DecodeError as error:
            await self._bury(ErrorCode.UNREADABLE, f"not an attempt: {error}", delivery)
            return None

    async def _bring_back(self, attempt: Attempt, delivery: Delivery) -> None:
        rested = not attempt.lane  # it was in a delay queue
        if delivery.death_reason and not rested:
            if delivery.death_reason != "expired":
                text = f"its worker died {topology.DELIVERY_LIMIT} times on lane {attempt.lane}"
                await self._bury(ErrorCode.DELIVERY_LIMIT, text, delivery, attempt)
                if not attempt.probe:
                    await self._end(attempt, End(ErrorCode.DELIVERY_LIMIT, text), delivery)
                return
            if await self._once.dispensable(attempt):
                return
            attempt = _unsent(attempt, ErrorCode.EXPIRED, f"no worker took it from {attempt.lane}'s queue in time")
        if not rested and attempt.tries:
            attempt = self._learn(attempt)
        if attempt.request.hedge_ms is not None:
            self.hedges.cancel(attempt)
        if await self._once.skip(attempt):
            self._sharing.dropped(attempt)
        else:
            await self._share(self._router.less_removed(attempt), delivery, rested=rested, kept=True)

    def _learn(self, attempt: Attempt) -> Attempt:
        """Takes from the last try what it says of its lane; one that found no room in its turn gets another turn."""
        last = attempt.tries[-1]
        if last.lane in self._router.health:  # metrics of a removed lane would come back
            metrics.RETURNED.labels(last.lane, last.code).inc()
        if last.code is ErrorCode.BAD_SYMBOL:
            self._router.knowledge.correct(last.lane, attempt.request, self._clock())
        if last.code is ErrorCode.NO_BUDGET and last.retry_at_ms:
            return self._router.refused(attempt, last.lane, last.retry_at_ms, results.now_ms())
        return attempt

    async def _share(self, attempt: Attempt, delivery: Delivery, *, rested: bool, kept: bool) -> None:
        """Gives a request the answer to an equal one, if it takes that and there is one; else sends it on its way.

        The arguments are those of `_advance`.
        """
        shares = attempt.request.max_age_ms is not None and not (attempt.share or attempt.tries or attempt.lane)
        sources = self._router.sources(attempt.request) if shares else {}
        match await self._sharing.find(attempt, delivery, sources) if sources else Alone():
            case Alone():
                await self._advance(attempt, delivery, rested=rested, kept=kept)
            case Leads(share):
                await self._advance(replace(attempt, share=share), delivery, rested=rested, kept=kept)
            case Later():
                await self._delay(attempt, LATER_MS)
            case Failed(code, why):
                await self._end(attempt, End(code, why), delivery, kept=kept)
            case Given() as given:
                publish = functools.partial(self._give, attempt, given, delivery)
                await self._once.answer(attempt, publish, kept=kept)

    async def _give(self, attempt: Attempt, given: Given, delivery: Delivery) -> None:
        async with self._giving.taken(given.size_bytes):
            result = results.shared(attempt, given.exchange, given.lane, await given.data(attempt.content_type))
            body = encode(replace(result, age_ms=given.age_ms), attempt.content_type)
            if len(body) > RESULT_LIMIT_BYTES:
                text = f"the result has {len(body)} bytes, more than {RESULT_LIMIT_BYTES}: ask for less at once"
                result = results.failure(attempt, ErrorCode.TOO_LARGE, text)
                body = encode(result, attempt.content_type)
            await self._outbox.put(results.ready(attempt, result, body), delivery)

    async def _delay(self, attempt: Attempt, wait_ms: float) -> None:
        queue = topology.delay_name(topology.delay_for(wait_ms))
        await self._broker.publish(encode(attempt), queue)

    async def _advance(self, attempt: Attempt, delivery: Delivery, *, rested: bool, kept: bool = True) -> None:
        """Sends a request, lets it wait, or ends it; returns when the broker has confirmed what was published.

        Args:
            attempt: the request, and what was tried.
            delivery: the message that it is from.
            rested: whether it has just waited in a delay queue.
            kept: whether the message is an attempt already, and not yet a producer's request.
        """
        while True:
            decision = self._router.decide(attempt, self._clock(), results.now_ms(), rested=rested)
            match decision:
                case End():
                    await self._end(attempt, decision, delivery, kept=kept)
                case Wait():
                    metrics.WAITS.inc()
                    if decision.turn is not None and decision.turn != attempt.turn:
                        self._sharing.waits(attempt, decision.turn.at_ms)
                    await self._delay(replace(attempt, lane="", turn=decision.turn), decision.wait_ms)
                case Send():
                    sent = _sent(attempt, decision)
                    try:
                        body = await self.send(sent)
                    except Refused:
                        attempt = _unsent(sent, ErrorCode.NO_BUDGET, f"{decision.lane}'s queue is full")
                        continue
                    except Unroutable:  # another dispatcher has read the new configuration first
                        attempt = _unsent(sent, ErrorCode.EXPIRED, f"{decision.lane} has no queue")
                        continue
                    self.hedges.plan(sent, body)
            return

    async def _hedge(self, attempt: Attempt) -> bool:
        """Asks a second lane beside this attempt; returns whether one could take it."""
        decision = self._router.hedge(attempt, self._clock(), results.now_ms())
        if decision is not None:
            await self.send(replace(_sent(attempt, decision), hedge=True))
        return decision is not None

    async def _end(self, attempt: Attempt, end: End, delivery: Delivery, *, kept: bool = True) -> None:
        """Answers with an error, once a request; after its delivery limit in any case."""
        self._sharing.failed(attempt, end.code, end.message)

        async def publish() -> None:
            metrics.ENDED.labels(end.code).inc()
            ready = results.ready(attempt, results.failure(attempt, end.code, end.message))
            await self._outbox.put(ready, delivery)

        await self._once.answer(attempt, publish, kept=kept, always=end.code is ErrorCode.DELIVERY_LIMIT)

    async def _refuse(self, attempt: Attempt, error: InvalidMessage, delivery: Delivery) -> None:
        """Answers a request that can't be run; one that can't be read at all also goes to `fleet.dead`."""
        log.info("request_refused", extra={"request_id": attempt.request.id, "code": error.code, "why": error.message})
        if error.code is ErrorCode.UNREADABLE:
            await self._bury(error.code, error.message, delivery, attempt)
            if not attempt.reply_to or addresses.refusal(attempt.reply_to):
                return
        await self._end(attempt, End(error.code, error.message), delivery, kept=False)

    async def _bury(self, reason: ErrorCode, message: str, delivery: Delivery, attempt: Attempt | None = None) -> None:
        metrics.DEAD.labels(reason).inc()
        await results.bury(self._broker, delivery, reason, message, attempt)


def _sent(attempt: Attempt, decision: Send) -> Attempt:
    """The attempt on its way to the lane that was decided on."""
    return replace(
        attempt,
        lane=decision.lane,
        number=attempt.number + 1,
        trial=decision.trial,
        max_wait_ms=decision.max_wait_ms,
        timeout_ms=decision.timeout_ms,
        bound=None,
        turn=decision.turn,
    )


def _unsent(attempt: Attempt, code: ErrorCode, message: str) -> Attempt:
    """The attempt as one that never reached a worker: it costs none of the attempts that a request has."""
    item = Try(attempt.lane, Outcome.THROTTLED, code, message, retry_at_ms=results.now_ms() + UNSENT_PAUSE_MS)
    return attempt.handed_back(item)
