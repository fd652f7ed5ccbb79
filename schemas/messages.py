"""Every message of the fleet as a msgspec Struct: `Request`, `Attempt`, `Result`, `Report`, and their error codes.

A message's whole state is in its body. Producers and consumers of results may speak JSON or MessagePack; between
dispatcher and workers it is always MessagePack. All times are Unix milliseconds, by the clock of who wrote them.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

from msgspec import DecodeError, Meta, Struct, ValidationError, json, msgpack
from msgspec.structs import replace

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
BODY_LIMIT_BYTES: Final = 256 * 1024
# RabbitMQ 4 takes messages of at most 16 MiB unless told otherwise, and closes the connection over a larger one.
RESULT_LIMIT_BYTES: Final = 15 * 1024 * 1024
# A request that waits for days for one exchange must not grow with every trial.
TRIES_KEPT: Final = 100
# A deadline above this (the year 5138) is no Unix time in milliseconds, most likely it is in microseconds.
LATEST_MS: Final = 100_000_000_000_000
# AMQP's short strings, which ids and addresses go into, end here.
SHORT_LIMIT_BYTES: Final = 255

T = TypeVar("T")
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
# What the fleet's own processes count and measure. Beyond these, or no number at all, is nothing that could be reckoned
# with: one NaN in a report would stay in all that a dispatcher knows of a lane.
Whole: TypeAlias = Annotated[int, Meta(gt=-(2**53), lt=2**53)]
Real: TypeAlias = Annotated[float, Meta(ge=-1e15, le=1e15)]
Priority: TypeAlias = Literal["live", "bulk"]
Strategy: TypeAlias = Literal["weighted_round_robin", "round_robin", "least_latency", "failover", "adaptive"]


class ErrorCode(enum.StrEnum):
    """Stable codes of errors. A producer may build on the code; the message beside it is for people."""

    # The request can't be run, here or anywhere: change it.
    UNREADABLE = "unreadable"
    INVALID_REQUEST = "invalid_request"
    TOO_LARGE = "too_large"
    UNKNOWN_EXCHANGE = "unknown_exchange"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_SUPPORTED = "not_supported"
    INVALID_ARGUMENTS = "invalid_arguments"
    BAD_SYMBOL = "bad_symbol"
    # The fleet could not get an answer in time.
    DEADLINE_EXCEEDED = "deadline_exceeded"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    # What happened to a single attempt.
    NO_BUDGET = "no_budget"
    PAUSED = "paused"
    EXPIRED = "expired"
    RATE_LIMITED = "rate_limited"
    EXCHANGE_UNAVAILABLE = "exchange_unavailable"
    EXCHANGE_TIMEOUT = "exchange_timeout"
    EXCHANGE_ERROR = "exchange_error"
    MAINTENANCE = "maintenance"
    BAD_RESPONSE = "bad_response"
    AUTHENTICATION = "authentication"
    CLOCK = "clock"
    RESTRICTED = "restricted"
    DELIVERY_LIMIT = "delivery_limit"
    INTERNAL = "internal"


# What speaks against the exchange or the way to it. The rest is about the request, the budget or ourselves.
ILL: Final = frozenset(
    {
        ErrorCode.EXCHANGE_UNAVAILABLE,
        ErrorCode.EXCHANGE_TIMEOUT,
        ErrorCode.EXCHANGE_ERROR,
        ErrorCode.MAINTENANCE,
        ErrorCode.BAD_RESPONSE,
        ErrorCode.RESTRICTED,
    }
)


class Outcome(enum.StrEnum):
    """How an attempt ended."""

    OK = "ok"
    THROTTLED = "throttled"  # not sent: no budget in time
    FAILED = "failed"  # another try may help
    REJECTED = "rejected"  # no try will help


class Request(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a producer publishes to `fleet.requests`; only `method` is required.

    Args:
        method: a ccxt read in snake_case, e.g. ``fetch_ticker``.
        args: its arguments by their ccxt names, e.g. ``{"symbol": "BTC/USDT", "limit": 5}``.
        id: names the request in its result; without it the AMQP message_id does, else the fleet makes one.
        exchanges: ccxt exchange ids or lane names that may answer, in order of preference; empty means any.
        exchanges_mode: ``any`` for one answer, from the best of them; ``all`` for one result from each, under one id.
        strategy: how to choose among them; without it the configured one.
        deadline_ms: Unix time in milliseconds by which the answer must be there; without it the configured time-out.
        priority: ``live``, or ``bulk`` for backfills, which never delay live requests.
        hedge_ms: without an answer after so long a second exchange is asked too; the first answer wins.
        account: the account it reads, by its name in the fleet's configuration; only lanes that have it take it then.
    """

    method: Name
    args: dict[str, Any] = {}
    id: Annotated[str, Meta(max_length=255)] = ""
    exchanges: Annotated[list[Name], Meta(max_length=128)] = []
    exchanges_mode: Literal["any", "all"] = "any"
    strategy: Strategy | None = None
    deadline_ms: int | None = None
    priority: Priority = "live"
    hedge_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | None = None
    account: Name | None = None

    @property
    def bulk(self) -> bool:
        """Whether it has time, and takes what live requests leave."""
        return self.priority == "bulk"

    @property
    def kind(self) -> str:
        """Names the requests that have limits of their own, as far as it shows: one text, which is hashed once."""
        return f"{self.priority} {self.method}"

    @property
    def subject(self) -> str:
        """What it is about: its method with its symbols or its currency, whatever else it asks."""
        about = next((self.args[name] for name in ("symbol", "symbols", "code", "codes") if self.args.get(name)), "")
        return f"{self.method} {about}"[:SHORT_LIMIT_BYTES]

    @property
    def digest(self) -> str:
        """Names what it asks, with every argument: equal requests have the same."""
        return _digest(repr((self.method, self.account, sorted(self.args.items(), key=_name))))

    @property
    def subject_digest(self) -> str:
        """Names what it is about, whatever else it asks."""
        return _digest(self.subject)


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


class Try(Struct, frozen=True, omit_defaults=True):
    """One attempt as the result tells it.

    Args:
        lane: where it was sent.
        outcome: how it ended.
        code: the error's code, None when it was ok.
        message: the error in the exchange's or ccxt's words, for people.
        waited_ms: time spent waiting for budget.
        exchange_ms: time between sending and the end of the exchange's answer, all HTTP calls together.
        retry_at_ms: before this time the lane can't take it (end of a pause, next free budget).
    """

    lane: str
    outcome: Outcome
    code: ErrorCode | None = None
    message: str = ""
    waited_ms: Real = 0.0
    exchange_ms: Real = 0.0
    retry_at_ms: Whole | None = None


class Attempt(Struct, frozen=True, omit_defaults=True):
    """A request on its way through the fleet: what lies in the work, delay and returned queues.

    Args:
        request: as published, with `id` and `deadline_ms` filled in.
        lane: where this attempt goes; empty while it waits in a delay queue.
        number: how many times it was sent to a lane, this time included; throttled ones and trials of an
            offline lane do not count.
        tries: the attempts that ended, oldest first, about `TRIES_KEPT` at most.
        reply_to: where the result goes; empty means `fleet.results`.
        correlation_id: goes into the result's properties.
        content_type: the encoding of the result.
        received_ms: when the dispatcher first saw the request.
        throttled: how often it was handed back unsent.
        trial: whether this attempt finds out if a lane that is offline is back.
        max_wait_ms: the longest it may wait for budget at the worker, None for as long as the worker allows.
        timeout_ms: the longest it may take at the worker: another lane could answer; None is until the deadline.
        results: how many results its request gets, this one's among them.
        hedge: a second attempt beside one that is still under way; if it fails, nobody needs to know.
        repeated: it may be a copy of one that was answered: a message it comes from was delivered before.
        probe: it asks how the lane is, for the reports; it is answered to nobody.
        digest: of the body as published: requests with one id and deadline differ in it, or in their addresses.
        taken: names the one time that its message was taken from the queue of requests.
        copy: that message may have been taken before: it was delivered again, or published again.
    """

    request: Request
    lane: str
    number: Whole
    received_ms: Whole
    reply_to: str = ""
    correlation_id: str = ""
    content_type: Literal["application/json", "application/msgpack"] = JSON
    tries: list[Try] = []
    throttled: Whole = 0
    max_wait_ms: Real | None = None
    timeout_ms: Real | None = None
    trial: bool = False
    results: Whole = 1
    hedge: bool = False
    repeated: bool = False
    probe: bool = False
    digest: str = ""
    taken: str = ""
    copy: bool = False

    @property
    def line(self) -> str:
        """Which of the two lines of attempts that one taking of a request has: the first, or the hedge beside it."""
        return "hedge" if self.hedge else "first"

    @property
    def contested(self) -> bool:
        """Whether another attempt at its request may be under way, or have answered it."""
        return self.repeated or self.request.hedge_ms is not None

    @property
    def deadline_ms(self) -> int:
        """The request's deadline; the dispatcher has set it on all that is in the fleet."""
        assert self.request.deadline_ms is not None
        return self.request.deadline_ms

    def handed_back(self, item: Try) -> Attempt:
        """This attempt with how it ended, on its way back to the dispatcher.

        One that was not sent, or was a trial, costs none of the request's attempts. Of those not sent only the last of
        a lane is kept, and of more than `TRIES_KEPT` the oldest goes that its lane repeated.
        """
        throttled = item.outcome is Outcome.THROTTLED
        number = self.number - (throttled or self.trial)
        if not throttled:
            return replace(self, tries=_newest([*self.tries, item]), number=number)
        kept = [old for old in self.tries if old.lane != item.lane or old.outcome is not Outcome.THROTTLED]
        return replace(self, tries=[*kept, item], number=number, throttled=self.throttled + 1)


def _newest(tries: list[Try]) -> list[Try]:
    last = {item.lane: number for number, item in enumerate(tries)}
    if len(tries) > max(TRIES_KEPT, len(last)):
        del tries[next(number for number, item in enumerate(tries) if last[item.lane] != number)]
    return tries


class Failure(Struct, frozen=True):
    """The error of a result: a stable code, and what to change or what happened, in words."""

    code: ErrorCode
    message: str


class Result(Struct, frozen=True):
    """The answer to one request: data, or an error that says why.

    Args:
        id: the request's id.
        ok: whether `data` is the answer; otherwise `error` says why not.
        method: as requested, empty when the request could not be read.
        exchange: the ccxt id of the exchange that answered, None when none did. In an error of a request to ``all``,
            the exchange or lane that did not.
        lane: the lane that answered.
        data: what the ccxt method returned.
        error: why there is no data.
        attempts: all attempts, oldest first.
        received_ms: when the fleet took the request.
        completed_ms: when this result was made.
        results: how many results this request gets: 1 unless it went to ``all``.
    """

    id: str
    ok: bool
    method: str = ""
    exchange: str | None = None
    lane: str | None = None
    data: Any = None
    error: Failure | None = None
    attempts: list[Try] = []
    received_ms: int = 0
    completed_ms: int = 0
    results: int = 1


class BucketReport(Struct, frozen=True, omit_defaults=True):
    """One bucket of a lane: how full it is now, for all workers, and what this one did since its last report.

    Args:
        used: the used part of what it may hold now, 0 to 1; the fullest count where it has many (pairs, endpoints).
        effective: the part of its table's amount that it may hold.
        paused_ms: how long the exchange asked for silence on it alone, from now.
        granted: what this worker's calls took of it, in its own units.
        waited_ms: how long they waited for it, all together.
        refused: how many found no room in it in time.
    """

    used: Real = 0.0
    effective: Real = 1.0
    paused_ms: Whole = 0
    granted: Real = 0.0
    waited_ms: Real = 0.0
    refused: Whole = 0


class Named(Struct, frozen=True, omit_defaults=True):
    """A request in a report, by what may make it fail: what it asks, what it is about, who asks.

    Args:
        digest: its `Request.digest`.
        subject: its `Request.subject_digest`.
        caller: a hash of its reply address; those without one count as one caller.
        against: how many of its failures speak against the lane.
    """

    digest: str
    subject: str
    caller: str
    against: Whole = 0

    @classmethod
    def of(cls, attempt: Attempt, against: int = 0) -> Self:
        """Names an attempt's request."""
        request = attempt.request
        return cls(request.digest, request.subject_digest, _digest(f"caller {attempt.reply_to}"), against)

    @property
    def names(self) -> Sequence[str]:
        """All three."""
        return self.digest, self.subject, self.caller


class LaneReport(Struct, frozen=True, omit_defaults=True):
    """What one worker saw of one lane since its last report; counts are of that time alone.

    Args:
        lane: the lane's name.
        ok: attempts that brought data. Attempts the exchange itself rejected (bad symbol) are in `rejected`.
        trials_ok: how many of those that brought data were trials.
        trials_void: trials that say nothing of the lane: no call was sent, or the request itself was refused.
        failed: attempts that failed, by code; only those in `ILL` speak against the lane.
        rejected: attempts that no try could have answered.
        uncalled: attempts that ended without an HTTP call; they are in no other count.
        excused: of those failed in `ILL`, how many say nothing of the exchange: answers that can't be used, a request
            that keeps failing while others are answered, one that had next to no time.
        failing: requests that failed, or were refused.
        answered: the names (`Named.names`) of requests that brought data; probes are none.
        failed_ago_ms: how long ago the last of those failed that speak against the lane was sent; 0 where none failed.
        throttled: attempts handed back unsent.
        ended: attempts that took budget and ended, by `Request.kind`.
        failures_in_a_row: failures in `ILL` since the last that was not, over the worker's life.
        in_flight: attempts it holds now, but for bulk ones: nobody has to wait for those.
        exchange_ms: mean time at the exchange of the attempts that were answered.
        buckets: the lane's buckets that are in use.
        paused_until_ms: the exchange asked the whole scope to be silent until then.
        lifted_ms: when an operator last ended the scope's pauses, by Redis's clock; 0 where none was.
        budget_ms: in which time the budget comes back that one attempt takes, on average lately; of a call's buckets
            in the one where that is longest. 0 while nothing is known.
        unanswered: HTTP calls that are out now.
        silent_ms: for how long calls have been out with no answer to any; 0 when none is out.
        slowness: how many times slower than usual the attempts that brought data were, each beside its own method.
        own_part: Redis is away, and the worker sends within this part of every limit; None while all share the whole.
        methods: what the lane can do; sent now and then, None in between.
        knowledge: the digest of what it lists, see `knowledge`; sent with `methods`.
    """

    lane: str
    ok: Whole = 0
    trials_ok: Whole = 0
    trials_void: Whole = 0
    failed: dict[ErrorCode, Whole] = {}
    rejected: Whole = 0
    uncalled: Whole = 0
    excused: Whole = 0
    failing: list[Named] = []
    answered: list[str] = []
    failed_ago_ms: Real = 0.0
    throttled: Whole = 0
    ended: dict[str, Whole] = {}
    failures_in_a_row: Whole = 0
    in_flight: Whole = 0
    exchange_ms: Real = 0.0
    buckets: dict[str, BucketReport] = {}
    paused_until_ms: Whole = 0
    lifted_ms: Whole = 0
    budget_ms: Real = 0.0
    unanswered: Whole = 0
    silent_ms: Real = 0.0
    slowness: Real = 1.0
    own_part: Real | None = None
    methods: list[str] | None = None
    knowledge: str = ""


class Report(Struct, frozen=True):
    """A worker's heartbeat and summary, to every dispatcher through `fleet.reports`.

    Args:
        worker: the worker's name, unique in the fleet.
        sent_ms: when it was made.
        lanes: one entry for each lane the worker serves.
        leaving: the worker stops and takes no more attempts.
    """

    worker: str
    sent_ms: Whole
    lanes: list[LaneReport]
    leaving: bool = False


class DeadLetter(Struct, frozen=True):
    """What lies in `fleet.dead` when the fleet itself put it there.

    Args:
        reason: the code of what was wrong.
        message: the same in words.
        origin: the queue it came from.
        at_ms: when.
        body: the body as it came, at most its first 256 KiB.
        request_id: of the request, or of the message where it could not be read; empty where it had none.
        attempts: how often the request had been sent to a lane.
        content_type: as the message had it, like the next two; a replay sends them again.
        reply_to: where its result was to go.
        correlation_id: what its result was to carry.
    """

    reason: ErrorCode
    message: str
    origin: str
    at_ms: int
    body: bytes
    request_id: str = ""
    attempts: int = 0
    content_type: str = ""
    reply_to: str = ""
    correlation_id: str = ""


_ATTEMPT: Final = msgpack.Decoder(Attempt)
_REPORT: Final = msgpack.Decoder(Report)
_LETTER: Final = msgpack.Decoder(DeadLetter)
_JSON_REQUEST: Final = json.Decoder(Request)
_MSGPACK_REQUEST: Final = msgpack.Decoder(Request)
_MSGPACK_ENCODER: Final = msgpack.Encoder(enc_hook=str)
_JSON_ENCODER: Final = json.Encoder(enc_hook=str)


def is_json(content_type: str, body: bytes) -> bool:
    """Whether a body is JSON: by its content type, and where that says nothing by its first byte."""
    if "json" in content_type:
        return True
    if "msgpack" in content_type:
        return False
    return body.lstrip()[:1] in (b"{", b"[", b'"')


def decode_request(content_type: str, body: bytes) -> Request:
    """Reads a request in the encoding its content type names.

    Raises:
        msgspec.DecodeError: it is neither JSON nor MessagePack.
        msgspec.ValidationError: it is, but not a request; the text names the field.
    """
    return decode_with(_JSON_REQUEST if is_json(content_type, body) else _MSGPACK_REQUEST, body)


def decode_attempt(body: bytes) -> Attempt:
    """Reads an attempt; raises msgspec.DecodeError if it is none, or not what the dispatcher makes of a request."""
    attempt = decode_with(_ATTEMPT, body)
    request = attempt.request
    if request.deadline_ms is None:
        raise ValidationError("Attempt missing required field `deadline_ms` - at `$.request`")
    if request.deadline_ms > LATEST_MS:
        raise ValidationError(f"Expected `int` <= {LATEST_MS} - at `$.request.deadline_ms`")
    if attempt.results > 1 and not request.exchanges:
        raise ValidationError("Expected the exchange that this result is of - at `$.request.exchanges`")
    texts = {"request.id": request.id, "reply_to": attempt.reply_to, "correlation_id": attempt.correlation_id}
    for name, text in (texts | {"digest": attempt.digest, "taken": attempt.taken}).items():
        if len(text.encode()) > SHORT_LIMIT_BYTES:
            raise ValidationError(f"Expected `str` of at most {SHORT_LIMIT_BYTES} bytes - at `$.{name}`")
    return attempt


def decode_report(body: bytes) -> Report:
    """Reads a report; raises msgspec.DecodeError if it is none."""
    return decode_with(_REPORT, body)


def decode_letter(body: bytes) -> DeadLetter:
    """Reads a dead letter; raises msgspec.DecodeError if it is none that the fleet itself wrote."""
    return decode_with(_LETTER, body)


def decode_with(decoder: json.Decoder[T] | msgpack.Decoder[T], body: bytes) -> T:
    """Decodes a body; whatever is wrong with it is a msgspec.DecodeError."""
    try:
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise DecodeError(f"text is not UTF-8: {error}") from error
    except RecursionError as error:
        raise DecodeError("nested too deep") from error


def encode(message: Struct, content_type: str = MSGPACK) -> bytes:
    """A message's body in the encoding named; values neither knows (ccxt has none today) go as text."""
    return _JSON_ENCODER.encode(message) if content_type == JSON else _MSGPACK_ENCODER.encode(message)
