"""Finds the endpoint that a URL is of, as ccxt's class for the exchange would have called it.

ccxt's `sign` makes URLs in a way of its own for each exchange. So each endpoint is signed once, with marks in place of
what its path takes, and without keys: what wants a key is none of the public ones. What comes out is looked up.
"""

import functools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ccxt.base.errors import NotSupported  # pyright: ignore[reportMissingTypeStubs]
from ccxt.base.types import Entry  # pyright: ignore[reportMissingTypeStubs]
from msgspec import Struct

from schemas.messages import Http

from ..limits.costs import Costs
from ..limits.tables import shipped

_IN_PATH: Final = re.compile(r"\{([\w-]+)\}")
# What stands for the first, second, … thing that a path takes: changed by no encoding, and in no path.
_MARK: Final = re.compile(r"0zqx(\d)xqz0")
# Apis that ccxt itself calls private, should one be signed without keys.
_PRIVATE: Final = re.compile(r"(?i)private")
_NAMED: Final = 12


class Endpoint(Struct, frozen=True):
    """An endpoint as ccxt calls it: the arguments of `fetch2`."""

    path: str
    api: Any
    method: str
    config: Mapping[str, Any]

    @property
    def apis(self) -> tuple[str, ...]:
        """The names that lead to it in ccxt's tree."""
        return (self.api,) if isinstance(self.api, str) else tuple(self.api)

    @property
    def key(self) -> str:
        """Its key in tables."""
        return f"{'.'.join(self.apis)} {self.method} {self.path}"


class Signed(Struct, frozen=True):
    """An HTTP call ready to be sent: what ccxt's `sign` returns."""

    url: str
    method: str
    body: str | None
    headers: Mapping[str, str] | None


class Found(Struct, frozen=True):
    """A call, and the endpoint that it is of."""

    endpoint: Endpoint
    call: Signed


class Form(Struct, frozen=True):
    """The form of an endpoint's URLs: where it leads on this lane, with marks; and what ccxt sends there."""

    endpoint: Endpoint
    target: str
    made: Mapping[str, Any]


class Urls:
    """Endpoints of a lane's exchange, by their URLs.

    Where the lane's settings lead elsewhere than ccxt's own (`urls`, `hostname`), the exchange's usual URLs mean the
    same endpoints there. Not so for a sandbox, which is another exchange.

    Args:
        exchange: the lane's instance of ccxt's class.
        usual: an instance without settings; None for a sandbox.
        wanted: the endpoints.
        costs: what calls cost. ccxt has some endpoints under two names: the first by `_rank` is taken.
    """

    def __init__(self, exchange: Any, usual: Any | None, wanted: Iterable[Endpoint], costs: Costs) -> None:
        self._exchange = exchange.id
        self._costs = costs
        self._plain: dict[tuple[str, str, str], Form] = {}
        self._marked: dict[tuple[str, str], list[tuple[re.Pattern[str], Form]]] = {}
        made = ((endpoint, signed(exchange, endpoint)) for endpoint in wanted)
        forms = [Form(endpoint, _plain_url(each), each) for endpoint, each in made if each is not None]
        for form in sorted(forms, key=self._rank):
            self._add(form.target, form)
            there = None if usual is None else signed(usual, form.endpoint)
            if there is not None and _plain_url(there) != form.target:
                self._add(_plain_url(there), form)
        for marked in self._marked.values():
            marked.sort(key=_least_marked)

    def _rank(self, form: Form) -> tuple[float, ...]:
        """Of the endpoints with one URL the one with the lowest rank is meant: one that the table knows."""
        endpoint = form.endpoint
        return (not self._costs.knows(endpoint.apis, endpoint.method, endpoint.path),)

    @property
    def origins(self) -> list[str]:
        """Where its URLs begin: scheme, host and port."""
        return sorted({origin for _, origin, _ in self._plain} | {origin for _, origin in self._marked})

    def form(self, method: str, url: str) -> tuple[Form, str]:
        """The form of a URL, and where a call with it goes on this lane: its query to the letter.

        Raises:
            NotSupported: none of these endpoints is there.
        """
        parts, (_, mark, query) = urlsplit(url), url.partition("?")
        origin, path = f"{parts.scheme.lower()}://{parts.netloc.lower()}", parts.path
        query = mark + query
        if form := self._plain.get((method, origin, path)):
            return form, form.target + query
        for pattern, form in self._marked.get((method, origin), ()):
            if taken := pattern.fullmatch(path):
                return form, _filled(form.target, taken) + query
        raise NotSupported(self._missing(method, origin, path))

    def _missing(self, method: str, origin: str, path: str) -> str:
        if origin not in self.origins:
            return f"{self._exchange} has no API at {origin}; it has one at {', '.join(self.origins[:_NAMED])}"
        return f"{self._exchange} has no {method} {path} in ccxt"

    def _add(self, url: str, form: Form) -> None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc.lower()}"
        if not _MARK.search(parts.path):
            self._plain.setdefault((form.endpoint.method, origin, parts.path), form)
            return
        pattern, seen = "", set[str]()
        for number, piece in enumerate(_MARK.split(parts.path)):
            if number % 2 == 0:
                pattern += re.escape(piece)
            else:
                pattern += f"(?P=m{piece})" if piece in seen else f"(?P<m{piece}>[^/]+)"
                seen.add(piece)
        self._marked.setdefault((form.endpoint.method, origin), []).append((re.compile(pattern), form))


class PublicUrls(Urls):
    """All public endpoints of a lane's exchange, by their URLs; see `Urls`.

    Args:
        exchange: the lane's instance, without keys.
        usual: see `Urls`.
        costs: see `Urls`.
    """

    def __init__(self, exchange: Any, usual: Any | None, costs: Costs) -> None:
        super().__init__(exchange, usual, endpoints(exchange), costs)

    def find(self, call: Http) -> Found:
        """The endpoint of a call, and the call as this lane sends it.

        Raises:
            NotSupported: no public endpoint of the exchange is there.
        """
        form, url = self.form(call.method, call.url)
        return Found(form.endpoint, Signed(url, call.method, call.body or None, form.made.get("headers")))

    def _missing(self, method: str, origin: str, path: str) -> str:
        if origin not in self.origins:
            text = f"{self._exchange} has no public API at {origin}; it has one at {', '.join(self.origins[:_NAMED])}"
        elif method == "POST":
            text = f"{self._exchange} has no POST {path} that is known to read only"
        else:
            text = f"{self._exchange} has no public GET {path} in ccxt"
        return text


def _filled(target: str, taken: re.Match[str]) -> str:
    """A URL with what a path takes in place of the marks."""
    return _MARK.sub(lambda mark: taken[f"m{mark[1]}"], target)


def read_by_post(exchange: str) -> tuple[str, ...]:
    """The POSTs of an exchange that only read, by its ccxt id: ``<api> POST <path>``."""
    return _read_by_post().get(shipped().limits_of(exchange), ())


@functools.cache
def _read_by_post() -> dict[str, tuple[str, ...]]:
    text = Path(__file__).with_name("read_by_post.toml").read_text(encoding="utf-8")
    return {exchange: tuple(keys) for exchange, keys in tomllib.loads(text).items()}


def endpoints(exchange: Any) -> Iterator[Endpoint]:
    """The endpoints of a ccxt class that only read: its GETs, and the POSTs of the list."""
    posts = read_by_post(exchange.id)
    for endpoint in all_endpoints(exchange):
        reads = endpoint.method == "GET" or endpoint.key in posts
        if reads and not _PRIVATE.search(endpoint.key.partition(" ")[0]):
            yield endpoint


def all_endpoints(exchange: Any) -> Iterator[Endpoint]:
    """The endpoints of a ccxt class."""
    seen = set[str]()
    for kind in type(exchange).__mro__:
        entries: list[Any] = [each for each in vars(kind).values() if isinstance(each, Entry)]
        for entry in entries:
            endpoint = Endpoint(entry.path, entry.api, entry.method, entry.config)
            if endpoint.key not in seen:
                seen.add(endpoint.key)  # ccxt has each twice: fetchX and fetch_x
                yield endpoint


def signed(exchange: Any, endpoint: Endpoint) -> Mapping[str, Any] | None:
    """What ccxt makes of an endpoint, with marks in place of what its path takes; None where it makes nothing."""
    taken = {name: f"0zqx{number}xqz0" for number, name in enumerate(_IN_PATH.findall(endpoint.path))}
    try:
        made: Mapping[str, Any] = exchange.sign(endpoint.path, endpoint.api, endpoint.method, taken)
    except Exception:  # whatever it stumbles on: without a key, this is no public endpoint
        return None
    return made


def keyless_url(exchange: Any, endpoint: Endpoint) -> str | None:
    """The URL that ccxt makes for an endpoint, without its query; None where it makes none."""
    made = signed(exchange, endpoint)
    return None if made is None else _plain_url(made)


def _plain_url(made: Mapping[str, Any]) -> str:
    return str(made["url"]).partition("?")[0]


def _least_marked(form: tuple[re.Pattern[str], Form]) -> tuple[int, int]:
    """Of the forms that a URL has, the one that says most of it comes first."""
    return form[0].groups, -len(form[0].pattern)
