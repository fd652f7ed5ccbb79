"""What an attempt that came back means for its request: one table from error codes to moves. Pure.

A worker answers `rejected` attempts itself. Those that come back to the dispatcher are `failed` or `throttled`, and
their code says the rest. `workers/exchange/errors.py` makes the codes from ccxt's classes and the exchanges' answers.
"""

import enum
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Final

from msgspec import Struct

from schemas.messages import Attempt, ErrorCode, Outcome, Try

# The first backoff before a request goes to a lane that failed it again; doubled with every attempt.
REST_MS: Final = 250.0
# After so many doublings it is longer than the longest delay queue.
_REST_DOUBLED: Final = 8


class Move(enum.StrEnum):
    """What the router does with a request whose attempt came back."""

    END = "end"  # it ends at once, with this code
    ELSEWHERE = "elsewhere"  # it never goes to this lane again; it ends when no other is left
    ANOTHER = "another"  # another lane first, this one after a backoff, until the deadline
    DOUBTED = "doubted"  # the same, but the request itself may be at fault: only `max_attempts` times
    WAIT = "wait"  # it was not sent: it may go to this lane again at the time that the attempt names


MOVES: Final[dict[ErrorCode, Move]] = {
    # The request is at fault; another lane would not change that.
    ErrorCode.UNREADABLE: Move.END,
    ErrorCode.INVALID_REQUEST: Move.END,
    ErrorCode.UNKNOWN_EXCHANGE: Move.END,
    ErrorCode.METHOD_NOT_ALLOWED: Move.END,
    ErrorCode.DEADLINE_EXCEEDED: Move.END,
    ErrorCode.ATTEMPTS_EXHAUSTED: Move.END,
    ErrorCode.DELIVERY_LIMIT: Move.END,
    # This lane can't answer it, now or later.
    # (What is wrong for certain, by our check or in the exchange's words, has the outcome `rejected` and ends.)
    ErrorCode.INVALID_ARGUMENTS: Move.ELSEWHERE,
    ErrorCode.NOT_SUPPORTED: Move.ELSEWHERE,
    # The exchange's answer is too large. (A request that is too large itself, a 413, is `rejected`.)
    ErrorCode.TOO_LARGE: Move.ELSEWHERE,
    ErrorCode.BAD_SYMBOL: Move.ELSEWHERE,
    ErrorCode.AUTHENTICATION: Move.ELSEWHERE,
    ErrorCode.CLOCK: Move.ELSEWHERE,
    # It does not serve this lane's address.
    ErrorCode.RESTRICTED: Move.ELSEWHERE,
    # The exchange, or the way to it, is at fault, and that may be over soon.
    ErrorCode.EXCHANGE_UNAVAILABLE: Move.ANOTHER,
    ErrorCode.EXCHANGE_TIMEOUT: Move.ANOTHER,
    ErrorCode.MAINTENANCE: Move.ANOTHER,
    ErrorCode.BAD_RESPONSE: Move.ANOTHER,
    ErrorCode.RATE_LIMITED: Move.ANOTHER,
    # The cause is not known.
    ErrorCode.EXCHANGE_ERROR: Move.DOUBTED,
    ErrorCode.INTERNAL: Move.DOUBTED,
    # It was not sent.
    ErrorCode.NO_BUDGET: Move.WAIT,
    ErrorCode.PAUSED: Move.WAIT,
    ErrorCode.EXPIRED: Move.WAIT,
}


def move(item: Try) -> Move:
    """What an attempt that came back asks for."""
    if item.outcome is Outcome.REJECTED:
        return Move.END
    return MOVES[item.code or ErrorCode.INTERNAL]


class Past(Struct, frozen=True):
    """What a request's attempts so far mean for its next one.

    Args:
        final: the attempt that ends it.
        never: lanes that can't answer it.
        failed: by lane, how often it failed the request; others go first.
        retry_at_ms: by lane, the time (Unix milliseconds) before which it can't take the request.
        paused_until_ms: the same where a pause is the reason, else 0. Reports never have the pause of a single
            endpoint, and have others only a little later.
        doubts: how many attempts failed in a way that may be the request's fault.
    """

    final: Try | None
    never: Set[str]
    failed: Mapping[str, int]
    retry_at_ms: Mapping[str, int]
    paused_until_ms: Mapping[str, int]
    doubts: int


NOTHING: Final = Past(None, frozenset(), {}, {}, {}, 0)
_PAUSED: Final = frozenset({ErrorCode.PAUSED, ErrorCode.RATE_LIMITED})


def past(tries: Sequence[Try]) -> Past:
    """Sums up a request's attempts."""
    if not tries:
        return NOTHING
    final: Try | None = None
    never, failed, retry_at_ms, doubts = set[str](), Counter[str](), dict[str, int](), 0
    for item in tries:
        retry_at_ms[item.lane] = item.retry_at_ms or 0
        match move(item):
            case Move.END:
                final = item
            case Move.ELSEWHERE:
                never.add(item.lane)
            case Move.ANOTHER:
                failed[item.lane] += 1
            case Move.DOUBTED:
                failed[item.lane] += 1
                doubts += 1
            case Move.WAIT:
                pass
    paused = {item.lane: item.retry_at_ms or 0 if item.code in _PAUSED else 0 for item in tries}
    return Past(final, never, failed, retry_at_ms, paused, doubts)


def exhausted(attempt: Attempt, doubts: int, max_attempts: int) -> bool:
    """Whether it was sent often enough: a request that may be at fault must not go round until a distant deadline.

    Failures that are plainly an exchange's do not end it before its deadline; the backoff between them grows.
    """
    return min(attempt.number, doubts) >= max_attempts


def rest_ms(attempt: Attempt, left_ms: float) -> float:
    """The backoff before a lane that failed a request gets it again; at most half of the time that is left."""
    doubled = min(max(attempt.number - 1, 0), _REST_DOUBLED)
    return min(REST_MS * (1 << doubled), max(left_ms / 2, REST_MS))
