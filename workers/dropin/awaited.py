"""ccxt's classes of `async_support` and of `pro` with the fleet in place of the network, but for websockets."""

from typing import TYPE_CHECKING, Any

from . import door, way
from .reads import is_public

if TYPE_CHECKING:

    class _Ccxt:
        id: str
        session: Any
        own_session: bool

        def open(self, lazy: bool) -> None: ...
        def get_socks_proxy_session(self, proxy: str) -> Any: ...
        async def load_markets(self, reload: bool, params: Any) -> Any: ...
        async def fetch2(self, path: str, api: Any, method: str, params: Any, config: Any) -> Any: ...
        async def fetch(self, url: str, method: str, headers: Any, body: Any) -> Any: ...
        async def close(self, *words: Any) -> None: ...

else:
    _Ccxt = object


class Session(way.Session):
    """Stands for an instance's session of the aiohttp library."""

    def get(self, url: Any, **how: Any) -> Any:
        """Called by ccxt for each HTTP call of that method, like the others."""
        return self._made("GET", url, how)

    def post(self, url: Any, **how: Any) -> Any:
        """See `get`."""
        return self._made("POST", url, how)

    def put(self, url: Any, **how: Any) -> Any:
        """See `get`."""
        return self._made("PUT", url, how)

    def patch(self, url: Any, **how: Any) -> Any:
        """See `get`."""
        return self._made("PATCH", url, how)

    def delete(self, url: Any, **how: Any) -> Any:
        """See `get`."""
        return self._made("DELETE", url, how)

    def _made(self, method: str, url: Any, how: dict[str, Any]) -> Any:
        caller = way.CALLER.get()
        if caller is None:
            return getattr(self.own, method.lower())(url, **how)
        return _Made(caller, method, str(url), how.get("data"))


class _Made:
    """A call that the fleet makes, as aiohttp has it: entered, it has the answer."""

    def __init__(self, caller: Any, method: str, url: str, body: Any) -> None:
        self._call = caller, method, url, body

    async def __aenter__(self) -> "_Response":
        caller, method, url, _ = self._call
        way.refuse(caller, method, url)
        return _Response(await door.ask_beside(*self._call))

    async def __aexit__(self, *_: object) -> None:
        """There is nothing to give back."""


class _Response:
    """What ccxt reads of an answer."""

    def __init__(self, answer: door.Answered) -> None:
        self.status = answer.status
        self.reason = answer.reason
        self.headers = answer.headers
        self.content = answer.content

    async def text(self, errors: str = "strict") -> str:
        """The body as text."""
        return self.content.decode(errors=errors)


class FleetCalls(way.Fleets, _Ccxt):
    """Mixed into a class: its public calls are made by the fleet. What comes back is ccxt's own affair."""

    async def throttle(self, cost: Any = None) -> None:
        """Called by ccxt before each call where `enableRateLimit` says so."""
        self.paced()

    def open(self, lazy: bool = False) -> None:
        """Opens it, as ccxt does before each call."""
        super().open(lazy)
        if not isinstance(self.session, Session):
            self.session = Session(self.session)

    def get_socks_proxy_session(self, proxy: str) -> Any:
        """What a proxy is for is the fleet's affair; websockets have theirs."""
        return super().get_socks_proxy_session(proxy) if way.CALLER.get() is None else self.session

    async def load_markets(self, reload: bool = False, params: Any = {}) -> Any:  # noqa: B006
        """Loads its markets, as ccxt does, by calls of their own kind."""
        token = way.LOADING.set(not reload)
        try:
            return await super().load_markets(reload, params)
        finally:
            way.LOADING.reset(token)

    async def fetch2(
        self,
        path: str,
        api: Any = ("public",),
        method: str = "GET",
        params: Any = {},  # noqa: B006 (ccxt's own signature; it is never written to)
        config: Any = {},  # noqa: B006
    ) -> Any:
        """Finds out whether a call is a public read, then lets ccxt sign and send."""
        if way.DIRECT.get() or is_public(self, path, api, method):
            return await super().fetch2(path, api, method, params, config)
        if why := way.refusal(self):
            token = way.REFUSED.set(why)
            try:
                return await super().fetch2(path, api, method, params, config)
            finally:
                way.REFUSED.reset(token)
        direct = way.DIRECT.set(True)
        try:
            return await (await self._twin()).fetch2(path, api, method, params, config)
        finally:
            way.DIRECT.reset(direct)

    async def _twin(self) -> Any:
        if (twin := way.twin_of(self)) is None:
            before = self.session if self.own_session else None
            twin = way.twin(self)
            if before is not None:
                await before.close()
        return twin

    async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """Makes one HTTP call."""
        token = way.CALLER.set(None if way.DIRECT.get() else self)
        try:
            return await super().fetch(url, method, headers, body)
        finally:
            way.CALLER.reset(token)

    async def close(self, *words: Any) -> None:
        """Closes it, as ccxt does."""
        if (twin := way.forget_twin(self)) is not None:
            await twin.close(*words)
            self.own_session = True
        else:
            await super().close(*words)
