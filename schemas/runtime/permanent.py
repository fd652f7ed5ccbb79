"""Why a connection can't be made, most of all where no retry changes that: certificates, files, protocols, passwords.

Only a person can change these, so a service that starts ends at once and says what to change. Everything else (nobody
listens, no answer, no such host yet) may be over in a moment, and is tried again. What only one kind of server says is
in `amqp.refusals` and `store`: this module needs neither's client.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

# Says what to change after an error of one kind of server, given the URL; empty where a retry may help.
Why: TypeAlias = Callable[[BaseException, str], str]

# The options of a URL that name files: of amqps, and of rediss.
FILES: Final = ("cafile", "capath", "certfile", "keyfile")
REDIS_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

# OpenSSL's codes for what is wrong with a certificate (x509_vfy.h), by what helps.
_UNTRUSTED: Final = frozenset({18, 19, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})
_OTHER_TIME: Final = frozenset({9, 10})

_TLS: Final = "see docs/operations.md, TLS"
# A handshake that breaks off: the server may be about to stop, or to start.
_BROKEN_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def why(error: BaseException, url: str, of_server: Why) -> str:
    """What to change, where no retry would help; empty where one may.

    Args:
        error: what connecting raised.
        url: the server's; its user and password are not repeated.
        of_server: knows the errors of this kind of server.
    """
    for each in _causes(error):
        if said := _of_tls(each, url) or of_server(each, url):
            return said
    return ""


async def why_cut(error: BaseException, url: str, timeout_s: float, of_server: Why) -> str:
    """As `why`; where the server closed the connection or stays silent, finds out whether it speaks as the URL says.

    Args:
        error: as in `why`.
        url: as in `why`.
        timeout_s: the longest that finding out may take.
        of_server: as in `why`.
    """
    if said := why(error, url, of_server):
        return said
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or (5672 if parts.scheme == "amqp" else 6379)
    if parts.scheme in {"amqp", "redis"} and any(map(_hung_up, _causes(error))):
        if await _speaks_tls(host, port, timeout_s):
            return f"it speaks TLS on this port: {parts.scheme}s://"
    elif (
        parts.scheme == "rediss" and any(map(_silent, _causes(error))) and await _speaks_plainly(host, port, timeout_s)
    ):
        return "it speaks no TLS on this port: redis://, or its port for TLS"
    return ""


def words(error: BaseException) -> str:
    """What happened where nobody has to change anything, in words of the innermost cause that has some."""
    causes = list(_causes(error))
    for each in causes:
        if isinstance(each, socket.gaierror):
            return "the host's name has no address"
        if isinstance(each, ConnectionRefusedError) or "Connect call failed" in str(each):
            return "connection refused"
        if isinstance(each, TimeoutError) or type(each).__name__ == "TimeoutError":  # redis-py has one of its own
            return "no answer in time"
    said = next((str(each) for each in reversed(causes) if str(each)), type(error).__name__)
    # What libraries say of an object whose connection has gone is its `repr`.
    return "the connection was lost" if said.startswith("<") or (error is causes[-1] and not str(error)) else said


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    seen = set[int]()
    while found is not None and id(found) not in seen:  # an error that was raised again may be among its own causes
        yield found
        seen.add(id(found))
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _of_certificate(error: BaseException, authority: str) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ""
    code = error.verify_code
    if code in _UNTRUSTED:
        change = f"name {authority}"
    elif code in _OTHER_NAME:
        change = "its subjectAltName has to hold the host that the URL names"
    elif code in _OTHER_TIME:
        change = "renew it, or set this machine's clock"
    else:
        change = "it, or its authority's, has to be made anew"
    return f"certificate verify failed: {error.verify_message}: {change}; {_TLS}"


def _of_tls(error: BaseException, url: str) -> str:
    parts = urlsplit(url)
    ours, files = ("?cafile=", FILES) if parts.scheme.startswith("amqp") else ("?ssl_ca_certs=", REDIS_FILES)
    if said := _of_certificate(error, f"its authority's file in the URL ({ours})"):
        return said
    named = [(option, path) for option, path in parse_qsl(parts.query) if option in files]
    if isinstance(error, OSError) and not isinstance(error, ConnectionError) and parts.scheme in {"amqps", "rediss"}:
        for option, path in named:
            if not os.access(path, os.R_OK):
                return f"can't read {option}={path}"
    if not isinstance(error, ssl.SSLError) or isinstance(error, _BROKEN_OFF):
        return ""
    if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}:
        return f"it speaks no TLS on this port: {parts.scheme.removesuffix('s')}://, or its port for TLS"
    if error.library == "SSL" and error.reason and "ALERT" in error.reason:
        return f"it refuses TLS as we speak it: {error.reason}; {_TLS}"
    what = f"{error.reason or error.strerror}"
    if named:
        return f"TLS: {what}; are {', '.join(f'{option}={path}' for option, path in named)} PEM files? {_TLS}"
    return f"TLS: {what}; {_TLS}"


def _hung_up(error: BaseException) -> bool:
    """Whether the server closed the connection; redis-py (8.1) has a text of its own for that."""
    return isinstance(error, (ConnectionResetError, asyncio.IncompleteReadError)) or "closed by server" in str(error)


def _silent(error: BaseException) -> bool:
    """Whether no answer came in time; redis-py has a class of its own for that, of the same name."""
    return isinstance(error, TimeoutError) or type(error).__name__ == TimeoutError.__name__


async def _speaks_plainly(host: str, port: int, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"PING\r\n")
            answer = await reader.read(1)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return answer in {b"+", b"-"}


async def _speaks_tls(host: str, port: int, timeout_s: float) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # no secret is sent
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
