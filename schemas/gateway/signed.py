"""What the gateway and what sends signed calls say to each other: a call that carries somebody's key, and its end.

The gateway knows no ccxt. So what sends is made elsewhere (`workers.direct.sender`), and only where `gateway.signed`
says so. Nothing here shows what a call carries.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from ..accounts import HIDDEN
from ..config import Config
from ..messages import Http


class SignedCall(Struct):
    """A call that is sent to the letter, once.

    Args:
        exchange: a ccxt id, or a lane's name.
        method: of HTTP.
        url: with its query.
        headers: by their names as they came.
        body: empty for none.
        written: it was written to a connection, so that it may have arrived.
    """

    exchange: str
    method: str
    url: str
    headers: Mapping[str, str]
    body: str = ""
    written: bool = False

    def __repr__(self) -> str:
        """Shows nothing that may be secret."""
        return f"SignedCall({self.exchange}, {self.method}, {HIDDEN})"


class Answered(Struct, frozen=True):
    """The exchange answered.

    Args:
        lane: by which the call went.
        exchange: its exchange.
        data: the answer, as that of an HTTP call (`docs/messages.md`).
    """

    lane: str
    exchange: str
    data: Mapping[str, Any]


class Unsent(Struct, frozen=True):
    """It was not sent.

    Args:
        code: why: a code of the fleet's or of the gateway's.
        message: the same in words, without anything that the call carries.
        retry_after_s: after how long another try may help; None where that is not known.
    """

    code: str
    message: str
    retry_after_s: float | None = None


class Lost(Struct, frozen=True):
    """It was sent, and nobody knows how it ended.

    Args:
        message: what happened, without anything that the call carries.
        timed_out: there was no answer in time; else none that is whole.
    """

    message: str
    timed_out: bool


End: TypeAlias = Answered | Unsent | Lost


class Sender(Protocol):
    """What sends signed calls."""

    async def open(self) -> None:
        """Says where calls are charged, and whether that can be reached."""
        ...

    async def is_read(self, exchange: str, call: Http) -> bool:
        """Whether a call without a signature is one that the fleet makes: a public read, or to an unknown exchange."""
        ...

    async def send(self, call: SignedCall, until_s: float) -> End:
        """Charges a call and sends it, once.

        When it is cancelled, a call that was not written yet is not sent. Of one that was it returns when the answer
        was read, as that may be a refusal.

        Args:
            call: the call.
            until_s: when its caller has to have an answer, on the event loop's clock.
        """
        ...

    def configure(self, config: Config) -> None:
        """Takes another configuration for the next calls; raises ConfigError where it can't be used."""
        ...

    async def close(self, *, cuts: bool = False) -> None:
        """Gives up what it holds of limits, and closes all connections, when no call is under way any more.

        Args:
            cuts: calls whose caller has gone end now. Else their answers are waited for.
        """
        ...
