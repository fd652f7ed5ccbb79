"""The one error tree. Outcomes of attempts are values (see `messages.Try`), never exceptions.

::

    FleetError
    ├── ConfigError       the configuration is wrong: says file, key and what was expected   never try again
    ├── TopologyError     a queue exists with other arguments than ours                      never try again
    ├── InvalidMessage    a body can't be read as the message it should be                   never try again
    └── BrokerError
        ├── BrokerLost    the connection died, or RabbitMQ did not answer in time            try again
        ├── Refused       RabbitMQ refused the message (queue full, or without a leader)     try again later
        ├── Silent        one queue does not confirm; it may have the message                try again later
        └── Unroutable    no queue takes the message                                         never try again
"""

from collections.abc import Callable
from typing import ClassVar

from .messages import ErrorCode


class FleetError(Exception):
    """All errors that the fleet raises. `retryable` says whether the same call may succeed later."""

    retryable: ClassVar[bool] = False


class ConfigError(FleetError):
    """The configuration can't be used; the message names the file, the key's path and what was expected."""


class TopologyError(FleetError):
    """RabbitMQ holds a queue or exchange of our name with other arguments."""


class InvalidMessage(FleetError):
    """A body that can't be read as the message it should be.

    Args:
        code: the stable code for the error result.
        message: what to change, for the author of the producer.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BrokerError(FleetError):
    """RabbitMQ could not be reached, or did not take a message."""


class BrokerLost(BrokerError):
    """The connection died, or RabbitMQ did not answer in time: a published message may or may not be there."""

    retryable = True


class Refused(BrokerError):
    """RabbitMQ refused the message with a negative confirm: its queue is full, or has no leader at the moment."""

    retryable = True


class Silent(BrokerError):
    """A queue does not confirm, while others confirm later messages: the message may or may not be there.

    Args:
        message: for how long.
        pending: returns whether the message is still not confirmed.
        held_up: whether it may be another queue that does not confirm and holds up this message.
    """

    retryable = True

    def __init__(self, message: str, pending: Callable[[], bool], *, held_up: bool) -> None:
        super().__init__(message)
        self.pending = pending
        self.held_up = held_up


class Unroutable(BrokerError):
    """No queue takes a mandatory message; RabbitMQ has returned it."""
