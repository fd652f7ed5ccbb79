"""Why a connection can't be made, where no retry mends it: certificates, files, protocols, names, passwords.

Only a person can mend these, so a service that starts ends at once and says what to change. All else (nobody listens,
no answer, no such host yet) may be over in a moment, and is tried again.
"""

import asyncio
import os
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import aiormq.exceptions
import redis.exceptions
from pamqp.commands import Connection

# The options of a URL that name files: of amqps, and of rediss.
FILES: Final = ("cafile", "capath", "certfile", "keyfile")
REDIS_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

# What OpenSSL calls a certificate's fault (x509_vfy.h), with what mends it.
_UNTRUSTED: Final = frozenset({18, 19, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})
_OTHER_TIME: Final = frozenset({9, 10})

_TLS: Final = "see docs/operations.md, TLS"
# A handshake that breaks off: the server may be about to stop, or to start.
_BROKEN_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def why(error: BaseException, url: str) -> str:
    """What no retry mends, and what to change; empty where a retry may help.

    Args:
        error: what connecting raised.
        url: where to; neither its user nor its password is told.
    """
    for each in _causes(error):
        if said := _of_tls(each, url) or _of_rabbitmq(each, url) or _of_redis(each):
            return said
    return ""


async def why_cut(error: BaseException, url: str, timeout_s: float) -> str:
    """As `why`; where a server has hung up on us, or is silent, asks it whether it speaks as the URL says.

    Args:
        error: as in `why`.
        url: as in `why`.
        timeout_s: the longest that the question may take.
    """
    if said := why(error, url):
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


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    seen = set[int]()
    while found is not None and id(found) not in seen:  # one that was raised anew may be among its own causes
        yield found
        seen.add(id(found))
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _of_certificate(error: BaseException, authority: str) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ""
    code = error.verify_code
    if code in _UNTRUSTED:
        mend = f"name {authority}"
    elif code in _OTHER_NAME:
        mend = "its subjectAltName has to hold the host that the URL names"
    elif code in _OTHER_TIME:
        mend = "renew it, or set this machine's clock"
    else:
        mend = "it, or its authority's, has to be made anew"
    return f"certificate verify failed: {error.verify_message}: {mend}; {_TLS}"


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


def _of_rabbitmq(error: BaseException, url: str) -> str:
    if isinstance(error, aiormq.exceptions.ProbableAuthenticationError):
        return "it refuses our user or password"
    if isinstance(error, aiormq.exceptions.AuthenticationError):
        return "it takes no password (auth_mechanisms in rabbitmq.conf, auth= in the URL)"
    if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
        return f"our user may not do this: {error}; give it the permission, or set broker.declare = false"
    if isinstance(error, aiormq.exceptions.ProtocolSyntaxError):
        said = _refusal_of_the_vhost(error)
        return said and f"{said}: is {urlsplit(url).path or '/'} the virtual host that is meant?"
    return ""


def _refusal_of_the_vhost(error: BaseException) -> str:
    """What RabbitMQ said as it closed the connection while it was opened: aiormq 7.2 keeps it in no attribute.

    Of a virtual host that is down, or has all connections that it may have, it says 530 too: that may be over soon.
    """
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame.f_locals.get("frame")
        if isinstance(frame, Connection.Close):
            text = frame.reply_text
            return text if frame.reply_code == 530 and ("not found" in text or "access to vhost" in text) else ""
        trace = trace.tb_next
    return ""


def _of_redis(error: BaseException) -> str:
    if isinstance(error, redis.exceptions.AuthenticationError) or str(error).startswith("WRONGPASS"):
        return "it refuses our user or password"
    if isinstance(error, redis.exceptions.ResponseError):
        said = str(error)
        if "DB index" in said or said.startswith("SELECT is not allowed"):
            return f"{said}: the URL names a database that it does not have"
    if isinstance(error, redis.exceptions.InvalidResponse):
        return "what listens there does not speak Redis's protocol"
    return ""


def _hung_up(error: BaseException) -> bool:
    closed = isinstance(error, redis.exceptions.ConnectionError) and "closed by server" in str(error)
    return closed or isinstance(error, (ConnectionResetError, asyncio.IncompleteReadError))


def _silent(error: BaseException) -> bool:
    return isinstance(error, (TimeoutError, redis.exceptions.TimeoutError))


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
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is told to it
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
