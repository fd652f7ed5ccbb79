"""Checks the configuration's URLs as their clients would read them. Errors do not repeat any part of a URL."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import yarl

from . import redis_urls
from .errors import ConfigError

# Options that aio-pika and aiormq read (aio-pika 10.2, aiormq 7.2), less those with a key in [broker].
_AMQP_TLS: Final = frozenset({"cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl"})
_AMQP: Final = frozenset({"auth"})
# Options that redis-py reads (redis 6.0), less those with a key in [redis], and those that would repeat commands or
# change their answers.
_REDIS_TLS: Final = frozenset(
    "ssl_ca_certs ssl_ca_path ssl_ca_data ssl_certfile ssl_keyfile ssl_password ssl_cert_reqs ssl_check_hostname "
    "ssl_ciphers ssl_min_version".split()
)
_REDIS: Final = frozenset("db username password client_name protocol socket_keepalive health_check_interval".split())
# Options that redis-py makes a number of, or knows some words for (`URL_QUERY_ARGUMENT_PARSERS` and `RedisSSLContext`).
_REDIS_VALUES: Final = {
    "db": r"\d+",
    "protocol": "[23]",
    "health_check_interval": r"\d+",
    "ssl_cert_reqs": "none|optional|required",
    "ssl_min_version": r"\d+",
}
_NO_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PORTS: Final = {"amqp": 5672, "amqps": 5671, "redis": 6379, "rediss": 6379}


def place(url: str) -> str:
    """Host and port of a server's URL, or its socket's path, for messages: never its user and password."""
    if "+" in url.partition("://")[0]:
        return ", ".join(map(place, redis_urls.read(url).urls))
    parts = urlsplit(url)
    return (
        parts.path
        if parts.scheme == "unix"
        else f"{parts.hostname or 'localhost'}:{parts.port or _PORTS[parts.scheme]}"
    )


def check(where: str, url: str) -> None:
    """Checks that a URL is valid, and that its password is read as it is meant.

    Args:
        where: where the URL stands, for the error.
        url: the URL.

    Raises:
        ConfigError: it can't be used.
    """
    if "+" in url.partition("://")[0]:
        _check_several(where, url)
        return
    try:
        parts = urlsplit(url)
        port = parts.port  # raises where it is no number
        if parts.scheme != "unix":
            yarl.URL(url)
        unquote(url, errors="strict")
    except ValueError:  # its text would repeat the URL
        parts, port = None, None
    wrong = parts is None or "@" in parts.path + parts.query.partition("=")[0] + parts.fragment
    if parts is None or wrong:
        raise ConfigError(f"{where}: expected a URL; /, ?, #, [ and ] in its password are %2F, %3F, %23, %5B and %5D")
    if any(sign.isspace() or not sign.isprintable() for sign in url):
        raise ConfigError(f"{where}: expected no blanks and no line breaks")
    if _NO_ESCAPE.search(url):
        raise ConfigError(f"{where}: expected two hexadecimal digits after each %; % itself is %25")
    if port == 0:
        raise ConfigError(f"{where}: expected a port from 1 to 65535")
    if not parts.hostname and parts.scheme not in {"unix", "redis", "rediss"}:
        raise ConfigError(f"{where}: expected a host")
    try:
        (parts.hostname or "").encode("idna")  # as Python's sockets do
    except UnicodeError:
        raise ConfigError(f"{where}: expected a host whose name has 1 to 63 characters between dots") from None
    if parts.scheme in {"amqp", "amqps"}:
        _check_options(where, url, _AMQP, _AMQP_TLS, "amqps", "[broker] has the times")
    elif parts.scheme in {"unix", "redis", "rediss"}:
        _check_options(where, url, _REDIS, _REDIS_TLS, "rediss", "[redis] has the times")
        _check_redis(where, url)


def _check_several(where: str, url: str) -> None:
    """Checks a URL of Sentinels or of a Cluster: as that of each server that it names."""
    try:
        servers = redis_urls.read(url)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    for each in (*servers.urls, servers.data_url):
        check(where, each)
    if re.search(r"[?&](sentinel_username|sentinel_password)=(&|$)", url):
        raise ConfigError(f"{where}: expected a value for the option sentinel_username or sentinel_password")
    databases = {value for option, value in parse_qsl(urlsplit(servers.data_url).query) if option == "db"}
    if servers.kind == "cluster" and databases - {"0"}:
        raise ConfigError(f"{where}: expected no other database than 0: a cluster has no more")


def check_own(where: str, urls: Any) -> None:
    """Checks the URLs that a lane's settings for ccxt have; raises as `check` does.

    Args:
        where: where they stand.
        urls: ccxt's tree of them, as in its own `urls.api`, or anything else.
    """
    for path, url in _texts(urls):
        here = f"{where}.{path}"
        if not re.match(r"(https?|wss?)://", url):
            raise ConfigError(f"{here}: expected a URL that begins with https:// or http://")
        check(here, re.sub(r"\{\w+\}", "x", url))  # {hostname} is filled in by ccxt


def _texts(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, branch in tree.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _texts(branch, f"{path}.{key}" if path else str(key))  # pyright: ignore[reportUnknownArgumentType]


def _check_options(where: str, url: str, plain: frozenset[str], tls: frozenset[str], scheme: str, else_: str) -> None:
    parts = urlsplit(url)
    allowed = plain | tls if parts.scheme == scheme else plain
    for option, value in parse_qsl(parts.query, keep_blank_values=True):
        if option in tls and option not in allowed:
            raise ConfigError(f"{where}: expected {scheme}:// where an option is for TLS ({_name(option)})")
        if option not in allowed:
            raise ConfigError(f"{where}: expected no option but {', '.join(sorted(allowed))}; {else_}")
        if not value:
            raise ConfigError(f"{where}: expected a value for the option {_name(option)}")


def _check_redis(where: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        if parts.hostname or not parts.path:
            raise ConfigError(f"{where}: expected the path of a socket: unix:///run/redis.sock")
    elif not re.fullmatch(r"/?|/\d+", parts.path):
        raise ConfigError(f"{where}: expected a database's number after the host, as in redis://host:6379/0")
    options = parse_qsl(parts.query)
    if any(not re.fullmatch(_REDIS_VALUES.get(option, ".*"), value, re.DOTALL) for option, value in options):
        names = ", ".join(sorted({_name(option) for option, _ in options}))
        raise ConfigError(f"{where}: expected options as redis-py reads them; one of {names} has another form")


def _name(option: str) -> str:
    return option if option in _AMQP_TLS | _AMQP | _REDIS_TLS | _REDIS else "one that nobody reads"
