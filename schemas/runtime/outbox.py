"""The results of one process on their way out.

A result waits here, not where it came from: the slot of its attempt or request is free (`Delivery.release`) while its
message stays unsettled, so that a crash loses nothing. What waits is bounded, in number and bytes.

A `reply_to` that takes nothing for `PATIENCE_S` is passed over, as if it were gone: its results go to `fleet.results`.
One that refuses (it is full, or nobody leads it) is left alone for a while, and what comes for it meanwhile goes to
`fleet.results` at once; then the next results try it, and one refusal is enough for a longer while. One that is silent
does not confirm, while RabbitMQ confirms what was published later; it is left alone until it has confirmed what it got.

A result is never thrown away. While RabbitMQ itself takes nothing, results wait for it; when no room is left, their
attempts keep their slots, and no other is begun. What a silent queue was sent it may still get: then the result is
there twice, in it and in `fleet.results`.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable
from typing import Any, Final

from .. import addresses, topology
from ..errors import FleetError, Refused, Silent, Unroutable
from .broker import Broker
from .deliveries import Delivery
from .results import Ready
from .room import Room

log = logging.getLogger(__name__)

PATIENCE_S: Final = 3.0
# Why a reply queue is passed over.
REFUSED: Final = "refused"
SILENT: Final = "silent"
# One that refuses is passed over for so long, twice as long each time that it refuses still.
ASIDE_S: Final = 5.0
ASIDE_MAX_S: Final = 60.0
# So many reply queues that are passed over are remembered while nothing waits for them.
SINKS_KEPT: Final = 1_000
# So many results are published to a reply queue at once. RabbitMQ reads nothing more from a channel, and so from the
# connection that all results go by, when a quorum queue has not written 32 of its messages (RabbitMQ's
# `quorum_commands_soft_limit`), or a classic one has not taken 400 (`credit_flow_default_credit`).
UNCONFIRMED: Final = 24
# So much may wait. Half of it is for what is under way, or waits for RabbitMQ itself: beyond that no refusal is waited
# out.
ROOM_COUNT: Final = 2_000
ROOM_BYTES: Final = 128 * 2**20
# Until a refused result is published again; doubled each time.
AGAIN_S: Final = 0.1
AGAIN_MAX_S: Final = 1.0


class _Sink:
    """A reply queue that results wait for, or that is passed over.

    Attributes:
        waiting: how many results wait for it.
        turn: at most so many of them are published at once.
        why: it is passed over; empty if it is not.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.turn = asyncio.Semaphore(UNCONFIRMED)
        self.why = ""
        self._until_s = 0.0
        self._gap_s = 0.0
        self._pending: list[Callable[[], bool]] = []

    def aside(self) -> bool:
        """Whether it is passed over at the moment."""
        self._pending = [pending for pending in self._pending if pending()]
        return bool(self._pending) or asyncio.get_running_loop().time() < self._until_s

    def refuses(self) -> float:
        """It is passed over for so long from now on, in seconds."""
        self.why = REFUSED
        self._gap_s = min(2 * self._gap_s, ASIDE_MAX_S) if self._gap_s else ASIDE_S
        self._until_s = asyncio.get_running_loop().time() + self._gap_s
        return self._gap_s

    def is_silent(self, pending: Callable[[], bool]) -> None:
        """It is passed over until it has confirmed what it was sent."""
        self.why = SILENT
        self._pending.append(pending)

    def takes(self) -> None:
        """It has taken a result, and so is neither full nor silent, whatever it was sent before."""
        self.why, self._gap_s, self._until_s = "", 0.0, 0.0
        self._pending.clear()


class Outbox:
    """Brings results to where they go.

    Args:
        broker: RabbitMQ.
        on_diverted: called for each result that goes to `fleet.results` because its `reply_to` takes nothing, with the
            reason: ``refused`` or ``silent``.
    """

    def __init__(self, broker: Broker, on_diverted: Callable[[str], None]) -> None:
        self._broker = broker
        self._on_diverted = on_diverted
        self._sinks: dict[str, _Sink] = {}
        self._room = Room(ROOM_COUNT, ROOM_BYTES)

    @property
    def count(self) -> int:
        """How many results wait for RabbitMQ."""
        return self._room.count

    @property
    def size_bytes(self) -> int:
        """How many bytes they and the messages they answer have."""
        return self._room.size_bytes

    async def room(self) -> None:
        """Returns when there is room for more results: what brings some may be begun."""
        await self._room.opened()

    async def put(self, ready: Ready, delivery: Delivery) -> None:
        """Publishes a result and waits for the confirm; the caller settles the delivery that it answers.

        The delivery's slot is free as soon as there is room for the result here.
        """
        async with self._room.taken(len(ready.body) + len(delivery.body)):
            delivery.release()
            if not ready.reply_to or not await self._reply(ready):
                await self._to_results(ready)

    async def _reply(self, ready: Ready) -> bool:
        """Whether its reply queue has it."""
        if addresses.is_direct(ready.reply_to):  # which is no queue: it neither refuses nor keeps silent
            return await self._replied(ready, _Sink())
        sink = self._sinks.setdefault(ready.reply_to, _Sink())
        sink.waiting += 1
        try:
            async with sink.turn:
                return await self._replied(ready, sink)
        finally:
            sink.waiting -= 1
            self._forget(ready.reply_to, sink)

    async def _replied(self, ready: Ready, sink: _Sink) -> bool:
        clock = asyncio.get_running_loop().time
        give_up_s, pause_s = clock() + PATIENCE_S, AGAIN_S
        while not sink.aside():
            try:
                await self._publish(ready, ready.reply_to, retry_refused=False, silent_after_s=PATIENCE_S)
            except Unroutable:
                log.warning("reply_to_is_gone", extra={"request_id": ready.request_id, "reply_to": ready.reply_to})
                sink.takes()
                return False
            except Refused:
                if sink.why or clock() >= give_up_s:
                    if not sink.aside():  # or another result was first
                        self._say_passed_over(ready, REFUSED, sink.refuses())
                    break
                if self._room.crowded():
                    self._on_diverted(REFUSED)
                    return False
            except Silent as error:
                if not error.held_up:
                    self._say_passed_over(ready, SILENT)
                    sink.is_silent(error.pending)
                    break
            else:
                sink.takes()
                return True
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, AGAIN_MAX_S)
        self._on_diverted(sink.why)
        return False

    @staticmethod
    def _say_passed_over(ready: Ready, why: str, for_s: float | None = None) -> None:
        log.warning("reply_to_passed_over", extra={"reply_to": ready.reply_to, "why": why, "for_s": for_s})

    def _forget(self, reply_to: str, sink: _Sink) -> None:
        """Of queues that nothing waits for, only those that are passed over are remembered, and not too many."""
        if sink.waiting or self._sinks.get(reply_to) is not sink:
            return
        if not sink.why:
            del self._sinks[reply_to]
        elif len(self._sinks) > SINKS_KEPT:
            idle = next((name for name, other in self._sinks.items() if not other.waiting), reply_to)
            del self._sinks[idle]

    async def _to_results(self, ready: Ready) -> None:
        while True:
            try:
                await self._publish(ready, ready.key, exchange=topology.RESULTS)
            except Unroutable:
                log.warning("results_queue_is_gone", extra={"request_id": ready.request_id})
            else:
                return
            try:
                await self._broker.restore()
            except FleetError as error:
                log.warning("results_queue_not_restored", extra={"error": str(error)})
            await asyncio.sleep(AGAIN_MAX_S)

    async def _publish(self, ready: Ready, key: str, **how: Any) -> None:
        """Publishes it, however long RabbitMQ is away; raises as `Broker.publish` does."""
        await self._broker.publish(
            ready.body,
            key,
            content_type=ready.content_type,
            correlation_id=ready.correlation_id,
            patience_s=math.inf,
            **how,
        )
