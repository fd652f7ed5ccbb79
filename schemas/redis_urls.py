"""URLs of Redis, also of several servers: of a Cluster's nodes, and of the Sentinels that know which server is primary.

::

    redis://[user:password@]host[:port][/db][?options]                             one server
    redis+sentinel://[user:password@]host[:port],…/service[/db][?options]          port 26379
    redis+cluster://[user:password@]host[:port],…[?options]                        port 6379

``rediss`` in place of ``redis`` is TLS to all of them. User and password are those of the servers that keep the data;
``sentinel_username`` and ``sentinel_password`` among the options are those of the Sentinels. limits, Prefect and docket
read the same (2026-11), redis-py has no URLs for either. Pure.
"""

import re
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

Kind: TypeAlias = Literal["one", "sentinel", "cluster"]
SENTINEL_PORT: Final = 26379
PORT: Final = 6379

_SEVERAL: Final = re.compile(r"(rediss?)\+(sentinel|cluster)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?(#.*)?", re.DOTALL)
# What Sentinel takes for a name (redis.conf, `sentinel monitor`).
_SERVICE: Final = re.compile(r"/([A-Za-z0-9._-]+)(/.*)?", re.DOTALL)
_OF_SENTINELS: Final = ("sentinel_username=", "sentinel_password=")


class Servers(Struct, frozen=True):
    """A URL, read.

    Args:
        kind: what it leads to.
        urls: of the servers that it names, as redis-py reads them: one, a Cluster's nodes, or Sentinels.
        data_url: of the servers that keep the data, as redis-py reads it; of Sentinels' one only the host is wrong.
        service: the name by which Sentinels know the primary; empty for the others.
    """

    kind: Kind
    urls: tuple[str, ...]
    data_url: str
    service: str = ""


def read(url: str) -> Servers:
    """Takes a URL apart.

    Raises:
        ValueError: one of several servers that names no host or no service; its text says what is expected.
    """
    found = _SEVERAL.fullmatch(url)
    if found is None:
        return Servers("one", (url,), url)
    scheme, kind, authority, path, options, fragment = found.groups("")
    secrets, at, hosts = authority.rpartition("@")
    if fragment or not all(re.match(r"[^:]", host) for host in hosts.split(",")):
        raise ValueError("expected hosts with commas between them: host:port,host:port")
    if kind == "cluster":
        if path not in {"", "/", "/0"}:
            raise ValueError("expected nothing behind a cluster's hosts: it has database 0 alone")
        urls = tuple(f"{scheme}://{secrets}{at}{_with_port(host, PORT)}/{options}" for host in hosts.split(","))
        return Servers("cluster", urls, urls[0])
    named = _SERVICE.fullmatch(path)
    if named is None:
        raise ValueError("expected the service's name behind the Sentinels, as in redis+sentinel://host:26379/mymaster")
    theirs, ours = _divided(options)
    user, password = (theirs.get(name, "") for name in _OF_SENTINELS)
    as_whom = f"{user}:{password}@" if user or password else ""
    urls = tuple(f"{scheme}://{as_whom}{_with_port(host, SENTINEL_PORT)}/{_tls(ours)}" for host in hosts.split(","))
    data = f"{scheme}://{secrets}{at}{_with_port(hosts.split(',')[0], PORT)}{named[2] or '/'}{_query(ours)}"
    return Servers("sentinel", urls, data, named[1])


def _with_port(host: str, port: int) -> str:
    has_one = re.search(r":[^\]]*$", host) if host.startswith("[") else ":" in host
    return host if has_one else f"{host}:{port}"


def _divided(options: str) -> tuple[dict[str, str], list[str]]:
    """The Sentinels' options and the others, none of them decoded."""
    all_of_them = [option for option in options.removeprefix("?").split("&") if option]
    ours = [option for option in all_of_them if not option.startswith(_OF_SENTINELS)]
    theirs = [option.partition("=") for option in all_of_them if option not in ours]
    return {f"{name}=": value for name, _, value in theirs}, ours


def _tls(options: list[str]) -> str:
    return _query([option for option in options if option.startswith("ssl_")])


def _query(options: list[str]) -> str:
    return f"?{'&'.join(options)}" if options else ""


def host_and_port(url: str) -> tuple[str, int]:
    """Where one server is."""
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or PORT
