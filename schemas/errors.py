"""The one error tree. Outcomes of attempts are values (see `messages.Try`), never exceptions.

::

    FleetError
    ├── ConfigError       the configuration is wrong: says file, key and what was expected   never try again
    ├── TopologyError     a queue exists with other arguments than ours                      never try again
    ├── InvalidMessage    a body can't be read as the message it should be                   never try again
    └── BrokerError
        ├── BrokerLost    the connection died or the broker did not answer in time           try again
        ├── Refused       the broker refused the message (queue full, or without a leader)   try again later
        ├── Silent        a queue does not confirm what others do; it may have the message   try again later
        └── Unroutable    no queue takes the message                                         never try again
"""

from collections.abc import Callable
from typing import ClassVar

from .messages import ErrorCode


class FleetError(Exception):
    """Everything the fleet raises on purpose. `retryable` says whether the same call may succeed later."""

    retryable: ClassVar[bool] = False


class ConfigError(FleetError):
    """The configuration can't be used; the message names the file, the key's path and what was expected."""


class TopologyError(FleetError):
    """The broker holds a queue or exchange of our name with other arguments."""


class InvalidMessage(FleetError):
    """A body that is not the message it should be.

    Args:
        code: the stable code that goes into the error result.
        message: what to change, for the person who wrote the producer.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BrokerError(FleetError):
    """Something between us and RabbitMQ."""


class BrokerLost(BrokerError):
    """The connection died, or the broker did not answer in time: what was published may or may not be there."""

    retryable = True


class Refused(BrokerError):
    """The broker refused the message with a negative confirm: its queue is full, or no node leads it at the moment."""

    retryable = True


class Silent(BrokerError):
    """A queue does not confirm, while others confirm what was published later: the message may or may not be there.

    Args:
        message: how long.
        pending: whether it has still not confirmed it.
        held_up: it may be another queue that does not confirm, and holds this one's message up.
    """

    retryable = True

    def __init__(self, message: str, pending: Callable[[], bool], *, held_up: bool) -> None:
        super().__init__(message)
        self.pending = pending
        self.held_up = held_up


class Unroutable(BrokerError):
    """A mandatory message that no queue takes; it was returned."""
