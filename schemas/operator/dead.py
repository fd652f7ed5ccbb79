"""The messages in `fleet.dead`, read the same way whether the fleet put them there or RabbitMQ itself.

A letter's `key` is a hash of its content, and so the same each time. `browsing` takes letters out of the queue and puts
them back.
"""

import datetime
import hashlib
from collections.abc import Collection
from typing import Any, Self

import msgspec
from aio_pika.abc import AbstractIncomingMessage
from msgspec import Struct

from .. import topology
from ..encodings import decode_request, is_json
from ..messages import (
    JSON,
    MSGPACK,
    Attempt,
    Request,
    decode_attempt,
    decode_letter,
    encode,
)


class Replay(Struct, frozen=True):
    """A request to be published again: the exchange it goes to, and the message."""

    exchange: str
    body: bytes
    content_type: str
    reply_to: str
    correlation_id: str
    message_id: str


class Letter(Struct, frozen=True):
    """One dead letter.

    Args:
        key: its name.
        reason: why it is in the queue, e.g. ``unreadable``.
        message: the same in words, empty where RabbitMQ put it there.
        origin: the queue it came from.
        at_ms: when it was put there.
        request_id: the id of its request, or of the message.
        attempts: how often its request was sent to a lane; None where RabbitMQ put it there and it can't be read.
        body: the body of the message, at most its first 256 KiB.
        content_type: of the message, like the next two.
        reply_to: where its result was to go.
        correlation_id: for the properties of its result.
    """

    key: str
    reason: str
    message: str
    origin: str
    at_ms: int
    request_id: str
    attempts: int | None
    body: bytes
    content_type: str
    reply_to: str
    correlation_id: str

    @classmethod
    def read(cls, message: AbstractIncomingMessage) -> Self:
        """Reads a message of the queue: a `DeadLetter`, or a message that RabbitMQ dead-lettered."""
        try:
            ours = decode_letter(message.body)
        except msgspec.DecodeError:
            return cls._of_rabbitmq(message)
        return cls(_key(message.body), **msgspec.structs.asdict(ours))

    @classmethod
    def _of_rabbitmq(cls, message: AbstractIncomingMessage) -> Self:
        headers: dict[str, Any] = dict(message.headers)
        deaths = headers.get("x-death")
        first: Any = deaths[0] if isinstance(deaths, list) and deaths else None  # pyright: ignore[reportUnknownVariableType]
        death: dict[str, Any] = dict(first) if isinstance(first, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
        time = death.get("time")
        at_ms = int(time.timestamp() * 1000) if isinstance(time, datetime.datetime) else 0
        message_id = message.message_id or ""
        letter = cls(
            _key(message.body + f"{message_id} {at_ms}".encode()),
            str(headers.get("x-first-death-reason", "unknown")),
            "",
            str(headers.get("x-first-death-queue", "")),
            at_ms,
            message_id,
            None,
            message.body,
            message.content_type or "",
            message.reply_to or "",
            message.correlation_id or "",
        )
        attempt = letter.request()
        if attempt is None:
            return letter
        request_id = attempt.request.id or message_id
        return msgspec.structs.replace(letter, request_id=request_id, attempts=attempt.number)

    def request(self) -> Attempt | None:
        """The request in it, as a new one; None if it can't be read."""
        try:
            if self.published:
                request = decode_request(self.content_type, self.body)
                json = is_json(self.content_type, self.body)
                return Attempt(
                    _afresh(request), "", 0, 0, self.reply_to, self.correlation_id, JSON if json else MSGPACK
                )
            attempt = decode_attempt(self.body)
        except msgspec.DecodeError:
            return None
        return msgspec.structs.replace(attempt, request=_afresh(attempt.request))

    @property
    def published(self) -> bool:
        """Whether the body is as a producer published it."""
        return self.origin in (topology.REQUESTS, topology.BULK_REQUESTS)

    def replay(self) -> Replay | None:
        """The message to publish so that the request in it runs as a new one; None if it can't be read.

        Earlier attempts don't count, and a deadline that has passed is left out. All else is as the producer published
        it.
        """
        attempt = self.request()
        if attempt is None:
            return None
        body, content_type = self.body, self.content_type
        if not self.published or decode_request(content_type, body).deadline_ms != attempt.request.deadline_ms:
            body = encode(attempt.request, attempt.content_type)
            content_type = content_type if self.published else attempt.content_type
        bulk = self.origin == topology.BULK_REQUESTS or attempt.request.bulk
        exchange = topology.BULK_REQUESTS if bulk else topology.REQUESTS
        return Replay(exchange, body, content_type, attempt.reply_to, attempt.correlation_id, self.request_id)


class Filter(Struct, frozen=True):
    """Selects letters: those that match everything given.

    Args:
        keys: the beginnings of their keys; empty matches any.
        reason: why they are in the queue.
        origin: the queue they came from.
        request_id: their request's id.
        before_ms: they were put there before this time.
    """

    keys: Collection[str] = ()
    reason: str | None = None
    origin: str | None = None
    request_id: str | None = None
    before_ms: float | None = None

    def fits(self, letter: Letter) -> bool:
        """Whether a letter matches."""
        return (
            (not self.keys or letter.key.startswith(tuple(self.keys)))
            and self.reason in (None, letter.reason)
            and self.origin in (None, letter.origin)
            and self.request_id in (None, letter.request_id)
            and (self.before_ms is None or letter.at_ms < self.before_ms)
        )


def _afresh(request: Request) -> Request:
    now_ms = datetime.datetime.now(datetime.UTC).timestamp() * 1000
    passed = request.deadline_ms is not None and request.deadline_ms <= now_ms
    return msgspec.structs.replace(request, deadline_ms=None) if passed else request


def _key(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:12]
