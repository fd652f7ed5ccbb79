"""ccxt's blocking classes with the fleet in place of the network."""

import io
from typing import TYPE_CHECKING, Any

import requests
from requests.structures import CaseInsensitiveDict

from . import door, way
from .reads import is_public

if TYPE_CHECKING:

    class _Ccxt:
        id: str
        session: Any

        def load_markets(self, reload: bool, params: Any) -> Any: ...
        def fetch2(self, path: str, api: Any, method: str, params: Any, config: Any) -> Any: ...
        def fetch(self, url: str, method: str, headers: Any, body: Any) -> Any: ...
        def close(self, *words: Any) -> None: ...

else:
    _Ccxt = object


class Session(way.Session):
    """Stands for an instance's session of the requests library."""

    def request(self, method: str, url: str, **how: Any) -> Any:
        """Called by ccxt for each HTTP call."""
        caller = way.CALLER.get()
        if caller is None:
            return self.own.request(method, url, **how)
        way.refuse(caller, method, url)
        return _response(method, url, door.ask(caller, method, url, how.get("data")))


class FleetCalls(way.Fleets, _Ccxt):
    """Mixed into a class: its public calls are made by the fleet. What comes back is ccxt's own affair."""

    def throttle(self, cost: Any = None) -> None:
        """Called by ccxt before each call where `enableRateLimit` says so."""
        self.paced()

    def load_markets(self, reload: bool = False, params: Any = {}) -> Any:  # noqa: B006
        """Loads its markets, as ccxt does, by calls of their own kind."""
        token = way.LOADING.set(not reload)
        try:
            return super().load_markets(reload, params)
        finally:
            way.LOADING.reset(token)

    def fetch2(
        self,
        path: str,
        api: Any = ("public",),
        method: str = "GET",
        params: Any = {},  # noqa: B006 (ccxt's own signature; it is never written to)
        config: Any = {},  # noqa: B006
    ) -> Any:
        """Finds out whether a call is a public read, then lets ccxt sign and send."""
        if way.DIRECT.get() or is_public(self, path, api, method):
            return super().fetch2(path, api, method, params, config)
        if why := way.refusal(self):
            token = way.REFUSED.set(why)
            try:
                return super().fetch2(path, api, method, params, config)
            finally:
                way.REFUSED.reset(token)
        direct = way.DIRECT.set(True)
        try:
            return way.twin(self).fetch2(path, api, method, params, config)
        finally:
            way.DIRECT.reset(direct)

    def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """Makes one HTTP call."""
        if self.session is None:
            self.session = requests.Session()
        if not isinstance(self.session, Session):
            self.session = Session(self.session)
        token = way.CALLER.set(None if way.DIRECT.get() else self)
        try:
            return super().fetch(url, method, headers, body)
        finally:
            way.CALLER.reset(token)

    def close(self, *words: Any) -> None:
        """Closes it, as ccxt does."""
        if (twin := way.forget_twin(self)) is not None:
            twin.close()
        super().close(*words)


def _response(method: str, url: str, answer: door.Answered) -> requests.Response:
    response = requests.Response()
    response.status_code = answer.status
    response.reason = answer.reason
    response.url = url
    response.headers = CaseInsensitiveDict(answer.headers)
    response.raw = io.BytesIO(answer.content)
    response.request = requests.Request(method, url).prepare()
    return response
