"""Why RabbitMQ refuses a connection, where no retry changes that: user, password, permissions, virtual host."""

from urllib.parse import urlsplit

import aiormq.exceptions
from pamqp.commands import Connection


def why(error: BaseException, url: str) -> str:
    """What to change, as `permanent.why` asks; empty where the error is none of these."""
    if isinstance(error, aiormq.exceptions.ProbableAuthenticationError):
        return "it refuses our user or password"
    if isinstance(error, aiormq.exceptions.AuthenticationError):
        return "it takes no password (auth_mechanisms in rabbitmq.conf, auth= in the URL)"
    if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
        return f"our user may not do this: {error}; give it the permission, or set broker.declare = false"
    if isinstance(error, aiormq.exceptions.ProtocolSyntaxError):
        said = _of_the_vhost(error)
        return said and f"{said}: is {urlsplit(url).path or '/'} the virtual host that is meant?"
    return ""


def _of_the_vhost(error: BaseException) -> str:
    """What RabbitMQ said as it closed the connection while it was being opened: aiormq 7.2 has no attribute for it.

    A virtual host that is down, or has all the connections that it may have, is refused with 530 too: that may be over
    soon.
    """
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame.f_locals.get("frame")
        if isinstance(frame, Connection.Close):
            text = frame.reply_text
            return text if frame.reply_code == 530 and ("not found" in text or "access to vhost" in text) else ""
        trace = trace.tb_next
    return ""
