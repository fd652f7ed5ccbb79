"""Every message of the fleet as a msgspec Struct: `Request`, `Attempt`, `Result`, `DeadLetter`, and their error codes.

`reports` has those that workers send about themselves. A message's whole state is in its body. Producers and consumers
of results may use JSON or MessagePack; between dispatchers and workers it is always MessagePack. All times are Unix
milliseconds by the sender's clock.
"""

from __future__ import annotations

import enum
import hashlib
import zlib
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

from msgspec import DecodeError, Meta, Struct, ValidationError, json, msgpack
from msgspec.structs import replace

from .times import LATEST_MS

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
BODY_LIMIT_BYTES: Final = 256 * 1024
# By default RabbitMQ 4 takes messages of at most 16 MiB, and closes the connection over a larger one.
RESULT_LIMIT_BYTES: Final = 15 * 1024 * 1024
# How many attempts a request keeps: one that waits for days for an exchange must not grow with every trial.
TRIES_KEPT: Final = 100
# The longest short string of AMQP, which ids and addresses are sent as.
SHORT_LIMIT_BYTES: Final = 255
# The oldest answer that a request may be given.
MAX_AGE_MS: Final = 86_400_000
# Into so many kinds the paths of HTTP calls are divided, where a dispatcher remembers what each kind takes.
HTTP_KINDS: Final = 64

T = TypeVar("T")
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
# Counts and measurements of the fleet's own processes. Larger ones, infinities and NaN are refused: one NaN in a report
# would stay in every mean that a dispatcher has of a lane.
Whole: TypeAlias = Annotated[int, Meta(gt=-(2**53), lt=2**53)]
Real: TypeAlias = Annotated[float, Meta(ge=-1e15, le=1e15)]
Priority: TypeAlias = Literal["live", "bulk"]
Strategy: TypeAlias = Literal["weighted_round_robin", "round_robin", "least_latency", "failover", "adaptive"]


class ErrorCode(enum.StrEnum):
    """Stable codes of errors. Programs may rely on the code; the message beside it is for people."""

    # The request can't be run, here or anywhere: change it.
    UNREADABLE = "unreadable"
    INVALID_REQUEST = "invalid_request"
    TOO_LARGE = "too_large"
    UNKNOWN_EXCHANGE = "unknown_exchange"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_SUPPORTED = "not_supported"
    INVALID_ARGUMENTS = "invalid_arguments"
    BAD_SYMBOL = "bad_symbol"
    # The fleet got no answer in time.
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


# Failures of the exchange or of the network to it. All others are of the request, the budget or the fleet itself.
EXCHANGE_FAILURES: Final = frozenset(
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
    THROTTLED = "throttled"  # not sent, or not read, for reasons of our own: no budget in time, a standstill
    FAILED = "failed"  # a retry may help
    REJECTED = "rejected"  # no retry helps


class Http(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One call of an exchange's public API, in place of a ccxt method; only `url` is required.

    Args:
        url: as the exchange's documents have it, with its query; in ASCII, percent-encoded.
        method: ``GET``; ``POST`` for reads that an exchange has no GET for.
        body: what a POST sends.
    """

    url: Annotated[str, Meta(min_length=1, max_length=8192)]
    method: Literal["GET", "POST"] = "GET"
    body: Annotated[str, Meta(max_length=65536)] = ""

    @property
    def path(self) -> str:
        """The URL's path."""
        return urlsplit(self.url).path


class Request(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a producer publishes to `fleet.requests`; only `method` or `http` is required.

    Args:
        method: a ccxt read in snake_case, e.g. ``fetch_ticker``; left out beside `http`.
        args: its arguments by their ccxt names, e.g. ``{"symbol": "BTC/USDT", "limit": 5}``.
        id: the request's id, repeated in its result; without it the AMQP message_id, else one that the fleet makes.
        exchanges: ccxt exchange ids or lane names that may answer, in order of preference; empty means any.
        exchanges_mode: ``any`` for one answer, from the best of them; ``all`` for one result from each, under one id.
        strategy: how to choose among them; without it the configured one.
        deadline_ms: Unix time in milliseconds when the answer is needed; without it the configured time-out counts.
        priority: ``live``, or ``bulk`` for backfills, which never delay live requests.
        hedge_ms: without an answer after so long a second exchange is asked too; the first answer wins.
        account: the account to read, by its name in the fleet's configuration; only lanes with this account take it.
        http: a call of an exchange's public API; `exchanges` says whose.
        max_age_ms: an answer to an equal request will do that is no older, or under way; of candles, ``bar``: one that
            holds every bar that is finished.
    """

    method: Name = ""
    args: dict[str, Any] = {}
    id: Annotated[str, Meta(max_length=255)] = ""
    exchanges: Annotated[list[Name], Meta(max_length=128)] = []
    exchanges_mode: Literal["any", "all"] = "any"
    strategy: Strategy | None = None
    deadline_ms: Whole | None = None
    priority: Priority = "live"
    hedge_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | None = None
    account: Name | None = None
    http: Http | None = None
    max_age_ms: Annotated[int, Meta(ge=0, le=MAX_AGE_MS)] | Literal["bar"] | None = None

    @property
    def bulk(self) -> bool:
        """Whether it has bulk priority: it uses the budget that live requests leave."""
        return self.priority == "bulk"

    @property
    def kind(self) -> str:
        """Its priority and method, as one text: requests of one kind take about the same budget."""
        if self.http is None:
            return f"{self.priority} {self.method}"
        # Of the paths, as they cost different amounts; of few texts, as a producer may think of any number of paths.
        return f"{self.priority} {self.method} {zlib.crc32(self.http.path.encode()) % HTTP_KINDS}"

    @property
    def subject(self) -> str:
        """Its method, with its symbols or its currency, without its other arguments; of an HTTP call its path."""
        if self.http is not None:
            return f"{self.method} {self.http.path}"[:SHORT_LIMIT_BYTES]
        about = next((self.args[name] for name in ("symbol", "symbols", "code", "codes") if self.args.get(name)), "")
        return f"{self.method} {about}"[:SHORT_LIMIT_BYTES]

    @property
    def digest(self) -> str:
        """A hash of its method, account and all arguments, or of its HTTP call: equal requests have the same."""
        asked = self.http or sorted(self.args.items(), key=_name)
        return digest_of(repr((self.method, self.account, asked)))

    @property
    def subject_digest(self) -> str:
        """A hash of its `subject`."""
        return digest_of(self.subject)


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def digest_of(text: str) -> str:
    """A short hash of a text."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


class Try(Struct, frozen=True, omit_defaults=True):
    """One attempt, as it is shown in the result.

    Args:
        lane: the lane that it was sent to.
        outcome: how it ended.
        code: the error's code, None when it was ok.
        message: the error in the exchange's or ccxt's words, for people.
        waited_ms: time spent waiting for budget.
        exchange_ms: time from sending to the end of the exchange's answer, over all HTTP calls.
        retry_at_ms: the earliest time at which the lane could take it (end of a pause, next free budget).
    """

    lane: str
    outcome: Outcome
    code: ErrorCode | None = None
    message: str = ""
    waited_ms: Real = 0.0
    exchange_ms: Real = 0.0
    retry_at_ms: Whole | None = None


class Bound(Struct, frozen=True, omit_defaults=True):
    """The limit that had no room for an attempt, which came back unsent.

    Args:
        key: names the bucket; where it counts by endpoint or pair, its count.
        at_ms: when it has room for one such call again, Unix milliseconds.
        step_ms: how long one such call takes of it: its cost as a part of the amount, times the window.
        apart: it counts each pair or instrument apart, so it says nothing of other symbols.
        rooms: how room comes back within one window, as pairs in order: an instant, and how many such calls have had
            room by then. Empty where it comes as evenly as calls can be apart, and where it is not known.
    """

    key: str
    at_ms: Whole
    step_ms: Real
    apart: bool = False
    rooms: list[tuple[Whole, Whole]] = []


class Turn(Struct, frozen=True, omit_defaults=True):
    """When a request that waits for room in a limit should have some.

    Args:
        lane: the lane whose limit it is.
        key: the bucket's, as in `Bound`; so are the last two.
        at_ms: its turn, Unix milliseconds.
        step_ms: how long the call takes of the bucket.
        apart: the bucket counts each pair apart.
    """

    lane: str
    key: str
    at_ms: Whole
    step_ms: Real
    apart: bool = False


class Attempt(Struct, frozen=True, omit_defaults=True):
    """A request on its way through the fleet: the message in the work, delay and returned queues.

    Args:
        request: as published, with `id` and `deadline_ms` filled in.
        lane: the lane that this attempt goes to; empty while it waits in a delay queue.
        number: how many times the request was sent to a lane, this time included; throttled attempts and trials do
            not count.
        tries: the attempts that ended, oldest first, about `TRIES_KEPT` at most.
        reply_to: where the result goes; empty means `fleet.results`.
        correlation_id: for the result's properties.
        content_type: the encoding of the result.
        received_ms: when a dispatcher first received the request.
        throttled: how often it was returned unsent.
        trial: whether this attempt finds out if a lane that is set aside has recovered.
        max_wait_ms: the longest that it may wait for budget at the worker, None for as long as the worker allows.
        timeout_ms: the longest that it may take at the worker, as another lane could answer; None: until the deadline.
        results: how many results its request gets, with this one.
        hedge: it is a second attempt beside one in flight; if it fails, it has no result.
        repeated: it may be a copy of an attempt that was answered, as a message before it was delivered twice.
        probe: it is a health probe of the lane, and has no result.
        digest: a hash of the body as published: it tells apart requests with one id, deadline and address.
        taken: an id of the delivery of the request that it comes from.
        copy: that delivery may not have been the first: the request was delivered again, or published again.
        bound: on its way back unsent, the limit that had no room.
        turn: when it should find room, where it waits for some or has waited.
        share: it asks for equal requests, too: the lease that says so, and its id.
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
    bound: Bound | None = None
    turn: Turn | None = None
    share: str = ""

    @property
    def branch(self) -> str:
        """Which attempts at one delivery of a request it belongs to: the first one and its retries, or the hedge."""
        return "hedge" if self.hedge else "first"

    @property
    def contested(self) -> bool:
        """Whether another attempt at its request may be in flight, or have answered it."""
        return self.repeated or self.request.hedge_ms is not None

    @property
    def deadline_ms(self) -> int:
        """The request's deadline; a dispatcher has set it on every attempt."""
        assert self.request.deadline_ms is not None
        return self.request.deadline_ms

    def handed_back(self, item: Try, bound: Bound | None = None) -> Attempt:
        """This attempt with its outcome added, on its way back to a dispatcher.

        Attempts that were not sent, and trials, do not count as attempts of the request. Of those not sent only the
        last one of each lane is kept. `bound` says which limit had no room. Above `TRIES_KEPT` the oldest one is
        dropped that its lane has repeated.
        """
        throttled = item.outcome is Outcome.THROTTLED
        number = self.number - (throttled or self.trial)
        if not throttled:
            return replace(self, tries=_newest([*self.tries, item]), number=number, bound=None)
        kept = [old for old in self.tries if old.lane != item.lane or old.outcome is not Outcome.THROTTLED]
        return replace(self, tries=[*kept, item], number=number, throttled=self.throttled + 1, bound=bound)


def _newest(tries: list[Try]) -> list[Try]:
    last = {item.lane: number for number, item in enumerate(tries)}
    if len(tries) > max(TRIES_KEPT, len(last)):
        del tries[next(number for number, item in enumerate(tries) if last[item.lane] != number)]
    return tries


class Failure(Struct, frozen=True):
    """The error of a result: a stable code, and in words what happened or what to change."""

    code: ErrorCode
    message: str


class Result(Struct, frozen=True):
    """The answer to one request: data, or an error that says why.

    Args:
        id: the request's id.
        ok: whether `data` is the answer; otherwise `error` says why not.
        method: as requested, empty when the request could not be read.
        exchange: the ccxt id of the exchange that answered, None when none did. In an error of a request to ``all``,
            the exchange or lane that did not answer.
        lane: the lane that answered.
        data: what the ccxt method returned.
        error: why there is no data.
        attempts: all attempts, oldest first.
        received_ms: when the fleet received the request.
        completed_ms: when this result was made.
        results: how many results this request gets: 1 unless it went to ``all``.
        age_ms: how old the data is, if it was fetched for an equal request: since its call left for the exchange.
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
    age_ms: int | None = None


class DeadLetter(Struct, frozen=True):
    """A message that the fleet itself put into `fleet.dead`.

    Args:
        reason: the code of what was wrong.
        message: the same in words.
        origin: the queue that it came from.
        at_ms: when it was put there.
        body: the body as received, at most its first 256 KiB.
        request_id: the id of the request, or of the message where that could not be read; empty where it had none.
        attempts: how often the request had been sent to a lane.
        content_type: of the message, like the next two; a replay publishes them again.
        reply_to: where its result was to go.
        correlation_id: for the properties of its result.
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
_LETTER: Final = msgpack.Decoder(DeadLetter)
_MSGPACK_ENCODER: Final = msgpack.Encoder(enc_hook=str)
_JSON_ENCODER: Final = json.Encoder(enc_hook=str)


def decode_attempt(body: bytes) -> Attempt:
    """Reads an attempt; raises msgspec.DecodeError if it is none, or one that no dispatcher would make."""
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


def decode_letter(body: bytes) -> DeadLetter:
    """Reads a dead letter; raises msgspec.DecodeError if the fleet itself did not write it."""
    return decode_with(_LETTER, body)


def decode_with(decoder: json.Decoder[T] | msgpack.Decoder[T], body: bytes) -> T:
    """Decodes a body; raises msgspec.DecodeError whatever is wrong with it."""
    try:
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise DecodeError(f"text is not UTF-8: {error}") from error
    except RecursionError as error:
        raise DecodeError("nested too deep") from error


def encode(message: Struct, content_type: str = MSGPACK) -> bytes:
    """A message's body in the given encoding. Values that have none (ccxt returns no such value today) become text."""
    return _JSON_ENCODER.encode(message) if content_type == JSON else _MSGPACK_ENCODER.encode(message)
