"""Publishes the results of one process, and holds them until RabbitMQ has confirmed them.

While a result waits here, the slot of its attempt or request is free (`Delivery.release`); its message stays unsettled,
so that a crash loses nothing. What waits is bounded, in number and bytes.

A reply queue that takes nothing for `PATIENCE_S` is skipped: its results go to `fleet.results`.

- One that refuses (it is full, or has no leader) is skipped for a while. Then the next results try it again, and one
  refusal is enough to skip it for longer.
- One that is silent does not confirm, while RabbitMQ confirms what was published later, and for a second more. It is
  skipped until it has confirmed what it was sent. It may still get that: then the result is there twice, in it and in
  `fleet.results`.

No result is ever thrown away. While RabbitMQ itself takes nothing, results wait; when no room is left, attempts keep
their slots and no new one is started.
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
# Why a reply queue is skipped.
REFUSED: Final = "refused"
SILENT: Final = "silent"
# How long a reply queue that refuses is skipped; doubled each time that it still refuses.
ASIDE_S: Final = 5.0
ASIDE_MAX_S: Final = 60.0
# How many skipped reply queues are remembered while nothing waits for them.
QUEUES_KEPT: Final = 1_000
# How many results are published to one reply queue at a time. RabbitMQ stops reading from a channel, and so from the
# connection of all results, when a quorum queue has not written 32 of its messages (RabbitMQ's
# `quorum_commands_soft_limit`), or a classic one has not taken 400 (`credit_flow_default_credit`).
UNCONFIRMED: Final = 24
# How much may wait. Half of it is kept for results in flight, or that wait for RabbitMQ itself: above half, a result is
# not published again after a refusal.
ROOM_COUNT: Final = 2_000
ROOM_BYTES: Final = 128 * 2**20
# The wait before a refused result is published again; doubled each time.
AGAIN_S: Final = 0.1
AGAIN_MAX_S: Final = 1.0


class ReplyQueue:
    """A reply queue that results wait for, or that is skipped.

    Attributes:
        waiting: how many results wait for it.
        turn: bounds how many of them are published at a time.
        why: why it is skipped; empty if it is not.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.turn = asyncio.Semaphore(UNCONFIRMED)
        self.why = ""
        self._until_s = 0.0
        self._gap_s = 0.0
        self._pending: list[Callable[[], bool]] = []

    def aside(self) -> bool:
        """Whether it is skipped at the moment."""
        self._pending = [pending for pending in self._pending if pending()]
        return bool(self._pending) or asyncio.get_running_loop().time() < self._until_s

    def refuses(self) -> float:
        """It has refused: skips it, and returns for how many seconds."""
        self.why = REFUSED
        self._gap_s = min(2 * self._gap_s, ASIDE_MAX_S) if self._gap_s else ASIDE_S
        self._until_s = asyncio.get_running_loop().time() + self._gap_s
        return self._gap_s

    def is_silent(self, pending: Callable[[], bool]) -> None:
        """It does not confirm: skips it until `pending` says that it has confirmed what it was sent."""
        self.why = SILENT
        self._pending.append(pending)

    def takes(self) -> None:
        """It has taken a result: it is neither full nor silent, whatever it was sent before."""
        self.why, self._gap_s, self._until_s = "", 0.0, 0.0
        self._pending.clear()


class Outbox:
    """Publishes results to their reply queues, or to `fleet.results`.

    Args:
        broker: RabbitMQ.
        on_diverted: called for each result that goes to `fleet.results` because its reply queue takes nothing, with the
            reason: ``refused`` or ``silent``.
    """

    def __init__(self, broker: Broker, on_diverted: Callable[[str], None]) -> None:
        self._broker = broker
        self._on_diverted = on_diverted
        self._queues: dict[str, ReplyQueue] = {}
        self._room = Room(ROOM_COUNT, ROOM_BYTES)

    @property
    def count(self) -> int:
        """How many results wait for RabbitMQ."""
        return self._room.count

    @property
    def size_bytes(self) -> int:
        """How many bytes they have, with the messages that they answer."""
        return self._room.size_bytes

    async def room(self) -> None:
        """Returns when there is room for more results: new work may be started."""
        await self._room.opened()

    async def put(self, ready: Ready, delivery: Delivery) -> None:
        """Publishes a result and waits for the confirm; the caller then settles the delivery that it answers.

        The delivery's slot becomes free as soon as there is room for the result here.
        """
        async with self._room.taken(len(ready.body) + len(delivery.body)):
            delivery.release()
            if not ready.reply_to or not await self._reply(ready):
                await self._to_results(ready)

    async def _reply(self, ready: Ready) -> bool:
        """Publishes a result to its reply queue; returns whether it is there."""
        if addresses.is_direct(ready.reply_to):  # no queue, which could refuse or be silent
            return await self._replied(ready, ReplyQueue())
        queue = self._queues.setdefault(ready.reply_to, ReplyQueue())
        queue.waiting += 1
        try:
            async with queue.turn:
                return await self._replied(ready, queue)
        finally:
            queue.waiting -= 1
            self._forget(ready.reply_to, queue)

    async def _replied(self, ready: Ready, queue: ReplyQueue) -> bool:
        clock = asyncio.get_running_loop().time
        give_up_s, pause_s = clock() + PATIENCE_S, AGAIN_S
        while not queue.aside():
            try:
                await self._publish(ready, ready.reply_to, retry_refused=False, silent_after_s=PATIENCE_S)
            except Unroutable:
                log.warning("reply_queue_missing", extra={"request_id": ready.request_id, "reply_to": ready.reply_to})
                queue.takes()
                return False
            except Refused:
                if queue.why or clock() >= give_up_s:
                    if not queue.aside():  # otherwise another result was first
                        self._log_skipped(ready, REFUSED, queue.refuses())
                    break
                if self._room.crowded():
                    self._on_diverted(REFUSED)
                    return False
            except Silent as error:
                if not error.held_up:
                    self._log_skipped(ready, SILENT)
                    queue.is_silent(error.pending)
                    break
            else:
                queue.takes()
                return True
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, AGAIN_MAX_S)
        self._on_diverted(queue.why)
        return False

    @staticmethod
    def _log_skipped(ready: Ready, why: str, for_s: float | None = None) -> None:
        log.warning("reply_queue_skipped", extra={"reply_to": ready.reply_to, "why": why, "for_s": for_s})

    def _forget(self, reply_to: str, queue: ReplyQueue) -> None:
        """Of queues that nothing waits for, only skipped ones are remembered, and not too many."""
        if queue.waiting or self._queues.get(reply_to) is not queue:
            return
        if not queue.why:
            del self._queues[reply_to]
        elif len(self._queues) > QUEUES_KEPT:
            idle = next((name for name, other in self._queues.items() if not other.waiting), reply_to)
            del self._queues[idle]

    async def _to_results(self, ready: Ready) -> None:
        while True:
            try:
                await self._publish(ready, ready.key, exchange=topology.RESULTS)
            except Unroutable:
                log.warning("results_queue_missing", extra={"request_id": ready.request_id})
            else:
                return
            try:
                await self._broker.restore()
            except FleetError as error:
                log.warning("results_queue_restore_failed", extra={"error": str(error)})
            await asyncio.sleep(AGAIN_MAX_S)

    async def _publish(self, ready: Ready, key: str, **how: Any) -> None:
        """Publishes a result, however long RabbitMQ is away; raises as `Broker.publish` does."""
        await self._broker.publish(
            ready.body,
            key,
            content_type=ready.content_type,
            correlation_id=ready.correlation_id,
            patience_s=math.inf,
            **how,
        )
