"""The contract: the messages, and all that another program needs to talk to the fleet.

Users install this package as ``ccxt_fleet``, with the other folders below it (`deploy/wheel.py`). It imports relatively
inside itself, and nothing of the other folders. Its modules need msgspec and what comes with aio-pika. Those of
`runtime`, which both services share as processes, and of `operator`, the command line, need more; no module here
imports them.

A program begins with ``from ccxt_fleet import Fleet``. The client is loaded when it is asked for, so that the contract
alone needs no connection.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from .version import VERSION

if TYPE_CHECKING:
    from .client.blocking import FleetSync
    from .client.errors import (
        Closed,
        DeadlineExceeded,
        NoDispatcher,
        NotAllowed,
        NotConnected,
        RequestFailed,
    )
    from .client.fleet import Fleet
    from .client.frames import to_frame
    from .client.http import HttpAnswer
    from .client.results import All, Answer, Result
    from .errors import FleetError
    from .messages import Http, Request

__version__: Final = VERSION

__all__ = [
    "All",
    "Answer",
    "Closed",
    "DeadlineExceeded",
    "Fleet",
    "FleetError",
    "FleetSync",
    "Http",
    "HttpAnswer",
    "NoDispatcher",
    "NotAllowed",
    "NotConnected",
    "Request",
    "RequestFailed",
    "Result",
    "__version__",
    "to_frame",
]

_FROM: Final = {
    "Fleet": "client.fleet",
    "FleetSync": "client.blocking",
    "to_frame": "client.frames",
    "All": "client.results",
    "Answer": "client.results",
    "Result": "client.results",
    "Http": "messages",
    "HttpAnswer": "client.http",
    "FleetError": "errors",
    "Request": "messages",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_FROM.get(name, 'client.errors')}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
