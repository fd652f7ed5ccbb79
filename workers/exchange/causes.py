"""Why a call got no usable answer, as the system, TLS, the proxy or the HTTP parser says it. Pure.

For an unknown host, a closed port, a wrong certificate and a dead proxy, ccxt raises the same `ExchangeNotAvailable`
with nothing but the URL (4.5.90). What really happened is in the error that it was raised from. aiohttp's own texts may
hold the whole URL with its query, so only their parts are taken.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import aiohttp

_ZSTANDARD: Final = (
    "the answer is compressed with Zstandard, which was not asked for. Operator: a proxy may do that; to read it, "
    "install backports.zstd where workers run"
)


def cause(error: BaseException) -> str:
    """The reason that the first error in a chain of causes names; empty where none names one.

    Args:
        error: what ccxt or aiohttp raised. The words may come from outside: they are to be cleaned.
    """
    return next((words for each in _chain(error) if (words := _words(each))), "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _words(error: BaseException) -> str:
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answers with status {error.status} {error.message}"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy at {_place(error)}: {_of_system(error.os_error)}"
        case aiohttp.ClientConnectorCertificateError():
            return f"TLS: {_of_system(error.certificate_error)} ({_place(error)})"
        case aiohttp.ClientConnectorError():
            return f"{_of_system(error.os_error)} ({_place(error)})"
        case aiohttp.InvalidURL():
            return "the URL of the exchange or of the proxy can't be read"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed before an answer came"
        case aiohttp.ConnectionTimeoutError():
            return "no connection in time"
        case aiohttp.SocketTimeoutError():
            return "no answer in time"
        case aiohttp.ClientResponseError():
            return _ZSTANDARD if "zstd" in error.message else f"no HTTP: {error.message}"
        case aiohttp.ClientPayloadError():
            # It was raised from what the parser says, which is shorter.
            inner = error.__cause__
            return str(getattr(inner, "message", "") or inner or error)
        case OSError() if not isinstance(error, TimeoutError):
            return _of_system(error)
        case _:
            return ""


def _place(error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> str:
    return f"{error.host}:{error.port}"


def _of_system(error: BaseException) -> str:
    """What the system or TLS says, without error numbers, addresses and source lines."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if not isinstance(error, OSError):
        return str(error)
    if isinstance(error, socket.gaierror):
        return f"the host's name has no address: {error.strerror}"
    words = os.strerror(error.errno) if error.errno else str(error)
    return words[:1].lower() + words[1:]
