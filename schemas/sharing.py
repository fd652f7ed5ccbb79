"""What makes two requests equal, so that one answer will do for both. Pure.

A question is a read with its arguments, or an HTTP call. A source is what answers it: an exchange, as lanes with the
same settings reach it. The answer of a source to a question has one key, which dispatchers and workers make alike. A
request may take the answer of any of its sources; so the requests that wait for each other are those with the same
question and the same sources.

Keys are hashes of an encoding that no two questions share. Producers choose what goes into a question and nothing else,
so none can make the key of another question.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import msgpack

from .config import LaneConfig
from .messages import Http, Request

# All in one slot of a Redis Cluster: one script makes room for an answer by dropping others.
KEYS: Final = "fleet:{answers}:"
# What ccxt's classes make a call's host and path of: see their `sign` (ccxt 4.5.90).
_LEADING: Final = ("hostname", "urls", "version")
_LEADING_OPTIONS: Final = ("access", "version", "versions")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def question(request: Request) -> str:
    """Names what a request asks, whoever answers it. Its arguments are as `dispatcher.intake` leaves them."""
    if request.http is not None:
        return _digest("http", request.http.method, plain_url(request.http), request.http.body)
    args = {name: value for name, value in request.args.items() if (name, value) != ("params", {})}
    return _digest("read", request.method, _sorted(args))


def source(lane: LaneConfig, request: Request) -> str:
    """Names what answers a request on a lane: settings lead ccxt to other markets, and some an HTTP call elsewhere."""
    return _digest(lane.known_as, _sorted(_plain(lane.ccxt if request.http is None else _leading(lane.ccxt))))


def _leading(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a lane's settings those that lead an HTTP call elsewhere than ccxt's own would: to another host, or path."""
    options: Mapping[str, Any] = settings.get("options", {})
    found = {name: settings[name] for name in _LEADING if name in settings}
    return found | {f"options.{name}": options[name] for name in _LEADING_OPTIONS if name in options}


def answer_key(asked: str, of: str) -> str:
    """Where Redis has a source's answer to a question."""
    return f"{KEYS}answer:{_digest(asked, of)}"


def lease_key(asked: str, sources: Iterable[str], *, bulk: bool) -> str:
    """Where Redis says who asks a question of these sources; a live request never waits for a bulk one."""
    return f"{KEYS}asked:{_digest(asked, sorted(sources), bulk)}"


def refusal_key(lease: str) -> str:
    """Where Redis has what an exchange last said to be wrong with the call of a lease, for those who waited."""
    return f"{KEYS}refusal:{_digest(lease)}"


def plain_url(call: Http) -> str:
    """An HTTP call's URL in the one spelling that equal ones have.

    The host is in lower case, a usual port is left out, and parameters are in the order of their names; those with one
    name stay in theirs.
    """
    parts = urlsplit(call.url)
    scheme = parts.scheme.lower()
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(scheme)) else f":{parts.port}"
    query = "&".join(sorted(parts.query.split("&"), key=lambda each: each.partition("=")[0]))
    return f"{scheme}://{(parts.hostname or '').lower()}{port}{parts.path or '/'}?{query}"


def _sorted(value: Any) -> Any:
    """A value whose tables have their keys in order."""
    if isinstance(value, dict):
        table: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return {name: _sorted(table[name]) for name in sorted(table)}
    if isinstance(value, list):
        return [_sorted(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _plain(value: Any) -> Any:
    """A setting as it can be encoded: TOML has dates, too."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list):
        return [_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, (str, bool, int, float)) else repr(value)


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(msgpack.encode(parts), digest_size=20).hexdigest()
