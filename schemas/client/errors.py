"""What goes wrong, as a program that uses the fleet sees it: one class for each error code, and four without one.

::

    FleetError
    ├── RequestFailed        a request ended in an error: `code`, `request_id`, `exchange`, `attempts`
    │   ├── BadSymbol, NotSupported, DeadlineExceeded …: one for each code, see `BY_CODE`
    ├── NotConnected         RabbitMQ could not be reached                          try again
    ├── NotAllowed           RabbitMQ does not let us in, or not do this            never try again
    ├── NoDispatcher         nothing takes requests: the fleet was never started    try again once it runs
    └── Closed               the client is not open, or was closed meanwhile        never try again

Where a program has imported ccxt, each error is one of ccxt's as well (`CCXT`): its ``except ccxt.NetworkError`` goes
on to work. Python matches an error by its real base classes. So they are combined when an error is made, and only
where ccxt is loaded by then: a program that names one of ccxt's classes has loaded it.
"""

import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Final, TypeVar

from ..errors import BrokerLost, ConfigError, FleetError, Unroutable
from ..messages import ErrorCode, Try

T = TypeVar("T", bound="FleetError")


class RequestFailed(FleetError):
    """A request ended in an error.

    Args:
        message: what happened, or what to change.
        method: what was asked for.
        request_id: the request's id: it stands in the fleet's logs too.
        exchange: the exchange that did not answer, where only one was meant; else None.
        attempts: all attempts of the request, oldest first.

    Attributes:
        code: the error's stable code.
        retryable: whether the same request may succeed later.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        method: str = "",
        request_id: str = "",
        exchange: str | None = None,
        attempts: Sequence[Try] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.method = method
        self.request_id = request_id
        self.exchange = exchange
        self.attempts = list(attempts)

    def __str__(self) -> str:
        """The code, what happened, and the request's id."""
        about = [f"request {self.request_id}"] if self.request_id else []
        if self.attempts:
            many = f"{len(self.attempts)} attempts, the last" if len(self.attempts) > 1 else "1 attempt,"
            about.append(f"{many} at {self.attempts[-1].lane}")
        return f"{self.code}: {self.message}" + (f" ({', '.join(about)})" if about else "")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its code and its values; ccxt's class is found again where it is unpickled."""
        return _again, (self.code, self.message, self.method, self.request_id, self.exchange, self.attempts)


class Unreadable(RequestFailed):
    """The request's body can't be read."""

    code = ErrorCode.UNREADABLE


class InvalidRequest(RequestFailed):
    """A field of the request is wrong."""

    code = ErrorCode.INVALID_REQUEST


class TooLarge(RequestFailed):
    """The request or its answer is too large: ask for less."""

    code = ErrorCode.TOO_LARGE


class UnknownExchange(RequestFailed):
    """The fleet has no lane, group or account of that name."""

    code = ErrorCode.UNKNOWN_EXCHANGE


class MethodNotAllowed(RequestFailed):
    """A write, or an account's read that names no account."""

    code = ErrorCode.METHOD_NOT_ALLOWED


class NotSupported(RequestFailed):
    """No exchange that the request names can do this."""

    code = ErrorCode.NOT_SUPPORTED


class InvalidArguments(RequestFailed):
    """The method's arguments are wrong."""

    code = ErrorCode.INVALID_ARGUMENTS


class BadSymbol(RequestFailed):
    """No lane that the request names lists the symbol."""

    code = ErrorCode.BAD_SYMBOL


class DeadlineExceeded(RequestFailed):
    """No answer in time: the fleet says what held it up, or nothing came back at all."""

    code = ErrorCode.DEADLINE_EXCEEDED
    retryable = True


class AttemptsExhausted(RequestFailed):
    """So many attempts failed that it may be the request's own fault."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED
    retryable = True


class NoBudget(RequestFailed):
    """The limit is used up for now."""

    code = ErrorCode.NO_BUDGET
    retryable = True


class Paused(RequestFailed):
    """The exchange asked for silence."""

    code = ErrorCode.PAUSED
    retryable = True


class Expired(RequestFailed):
    """No worker took it in time."""

    code = ErrorCode.EXPIRED
    retryable = True


class RateLimited(RequestFailed):
    """The exchange said "too many calls"."""

    code = ErrorCode.RATE_LIMITED
    retryable = True


class ExchangeUnavailable(RequestFailed):
    """No connection to the exchange, or a failure of its own."""

    code = ErrorCode.EXCHANGE_UNAVAILABLE
    retryable = True


class ExchangeTimeout(RequestFailed):
    """No answer from the exchange in time."""

    code = ErrorCode.EXCHANGE_TIMEOUT
    retryable = True


class ExchangeRefused(RequestFailed):
    """The exchange refused this very request, in words that no table knows."""

    code = ErrorCode.EXCHANGE_ERROR


class Maintenance(RequestFailed):
    """The exchange says that it is in maintenance."""

    code = ErrorCode.MAINTENANCE
    retryable = True


class BadResponse(RequestFailed):
    """The exchange's answer can't be used."""

    code = ErrorCode.BAD_RESPONSE
    retryable = True


class Authentication(RequestFailed):
    """The exchange wants an account or a person to act."""

    code = ErrorCode.AUTHENTICATION


class Clock(RequestFailed):
    """The exchange finds the time or the nonce wrong: set the clocks of the workers' machines."""

    code = ErrorCode.CLOCK


class Restricted(RequestFailed):
    """The exchange does not serve the workers' address, or its country."""

    code = ErrorCode.RESTRICTED


class DeliveryLimit(RequestFailed):
    """The request came back to its queue again and again: its workers died."""

    code = ErrorCode.DELIVERY_LIMIT


class Internal(RequestFailed):
    """A fault of the fleet's own; a worker's log has more."""

    code = ErrorCode.INTERNAL
    retryable = True


class NotConnected(BrokerLost):
    """RabbitMQ could not be reached: the message names where, and what it said."""


class NotAllowed(ConfigError):
    """RabbitMQ does not let us in, or not do this; no retry changes that."""


class NoDispatcher(Unroutable):
    """Nothing takes requests at this RabbitMQ: no dispatcher has declared the fleet's queues there."""

    retryable = True


class Closed(FleetError):
    """The client is not open in this program's loop, or was closed while the call was under way."""


BY_CODE: Final[dict[ErrorCode, type[RequestFailed]]] = {kind.code: kind for kind in RequestFailed.__subclasses__()}

# The class of ccxt that each error is as well, by its name there.
CCXT: Final[dict[type[FleetError], str]] = {
    Unreadable: "BadRequest",
    InvalidRequest: "BadRequest",
    TooLarge: "BadRequest",
    UnknownExchange: "BadRequest",
    MethodNotAllowed: "NotSupported",
    NotSupported: "NotSupported",
    InvalidArguments: "BadRequest",
    BadSymbol: "BadSymbol",
    DeadlineExceeded: "RequestTimeout",
    AttemptsExhausted: "OperationFailed",
    NoBudget: "RateLimitExceeded",
    Paused: "RateLimitExceeded",
    Expired: "RequestTimeout",
    RateLimited: "RateLimitExceeded",
    ExchangeUnavailable: "ExchangeNotAvailable",
    ExchangeTimeout: "RequestTimeout",
    ExchangeRefused: "ExchangeError",
    Maintenance: "OnMaintenance",
    BadResponse: "BadResponse",
    Authentication: "AuthenticationError",
    Clock: "InvalidNonce",
    Restricted: "RestrictedLocation",
    DeliveryLimit: "OperationFailed",
    Internal: "OperationFailed",
    NotConnected: "NetworkError",
    NotAllowed: "AuthenticationError",
    NoDispatcher: "ExchangeNotAvailable",
    Closed: "BaseError",
}


_COMBINED: Final[dict[tuple[type[FleetError], type[Exception]], Any]] = {}


def as_raised(kind: type[T]) -> type[T]:
    """The class to raise for one of ours: the same with ccxt's class as a second base, where ccxt is loaded."""
    loaded = sys.modules.get("ccxt.base.errors")
    theirs = getattr(loaded, CCXT[kind], None) if kind in CCXT else None
    if theirs is None:
        return kind

    def pickled(error: FleetError) -> tuple[Any, ...]:
        return _raised, (kind, error.args), vars(error)

    if (kind, theirs) not in _COMBINED:
        named: dict[str, Any] = {name: getattr(kind, name) for name in ("__doc__", "__module__", "__qualname__")}
        if not issubclass(kind, RequestFailed):  # which is pickled in its own way
            named["__reduce__"] = pickled
        _COMBINED[kind, theirs] = type(kind.__name__, (kind, theirs), named)
    combined: type[T] = _COMBINED[kind, theirs]
    return combined


def failed(
    code: ErrorCode,
    message: str,
    method: str = "",
    request_id: str = "",
    exchange: str | None = None,
    attempts: Sequence[Try] = (),
) -> RequestFailed:
    """The error for a code, ready to be raised; see `RequestFailed` for the rest."""
    kind = as_raised(BY_CODE.get(code, Internal))
    return kind(message, method=method, request_id=request_id, exchange=exchange, attempts=attempts)


def _raised(kind: type[T], values: tuple[Any, ...]) -> T:
    return as_raised(kind)(*values)


def _again(code: ErrorCode, *values: Any) -> RequestFailed:
    return failed(code, *values)
