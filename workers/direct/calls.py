"""ccxt's classes of `async_support` with every call charged, or only counted."""

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import ConfigError
from schemas.runtime.tasks import cancellations, cancelled

from ..exchange.call import CALL, Call, Heard
from ..exchange.charged import ChargedCalls, ccxt, charges_of
from ..exchange.egress import Egress, tls
from ..exchange.errors import NoBudget
from .purse import Purse

# A call that swallowed its cancellation is cancelled again.
CANCEL_AGAIN_S: Final = 0.2
# A fork must not write to its parent's connections, nor may what would close them be collected as garbage.
_OF_PARENTS: Final = list[Egress]()

if TYPE_CHECKING:

    class _Ccxt:
        id: str
        has: dict[str, Any]

        async def fetch2(self, path: str, api: Any, method: str, params: Any, config: Any) -> Any: ...
        async def fetch_time(self) -> Any: ...
        async def close(self) -> None: ...

else:
    _Ccxt = ccxt.Exchange


class Calls(ChargedCalls):
    """Mixed into an instance's class: every call waits for budget. What comes back is ccxt's own affair."""

    purse: Purse
    own_session: bool
    session: Any
    has: dict[str, Any]
    egress: Egress | None = None

    @staticmethod
    def check(exchange: Any) -> None:
        """Refuses an instance whose calls would not go over connections of ours; raises ConfigError."""
        if exchange.session is not None or not exchange.own_session:
            raise ConfigError(f"{exchange.id}: it has a session already: charge it before its first call, without one")
        for name in ("socksProxy", "socks_proxy", "proxyUrl", "proxy_url", "aiohttp_trust_env"):
            if getattr(exchange, name, None):
                raise ConfigError(f"{exchange.id}: {name} does not work with charged: give httpsProxy")
        if _is_pro(exchange):
            raise ConfigError(f"{exchange.id}: a class of ccxt.pro: charge one of ccxt.async_support beside it")

    def may_repeat(self, method: str) -> bool:
        """Whether a call may be sent again where the first may have arrived: an order must not."""
        return method == "GET"

    def new_call(self) -> Call:
        """What the next call may use."""
        return self.purse.new_call(self)

    async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """Sends one HTTP call. Once it is written its answer is read, whoever is cancelled: it may be a refusal."""
        call = CALL.get()
        if cancelled(call.cancellations):  # something on the way here swallowed it
            raise asyncio.CancelledError
        sending = asyncio.create_task(super().fetch(url, method, headers, body))
        try:
            await asyncio.wait([sending])
        except asyncio.CancelledError:
            await self.let_go(call, sending)
            raise
        return sending.result()

    def failed(self, error: Exception, heard: Heard) -> None:
        """Nothing: a program's own errors are its own to judge, and to pickle."""

    async def let_go(self, call: Call, sending: asyncio.Task[Any]) -> None:
        """Nobody waits for an HTTP call any more: it ends where it was not written yet, and else goes on by itself.

        Args:
            call: what it belongs to.
            sending: sends it, reads its answer and tells the fleet what that says of limits.
        """
        self.purse.keep(sending)
        while not sending.done() and not call.written:
            sending.cancel()
            await asyncio.wait([sending], timeout=CANCEL_AGAIN_S)

    async def fetch2(
        self,
        path: str,
        api: Any = ("public",),
        method: str = "GET",
        params: Any = {},  # noqa: B006
        config: Any = {},  # noqa: B006
    ) -> Any:
        """Waits for budget, then lets ccxt sign and send."""
        purse, before = self.purse, cancellations()
        measuring = CALL.get(None)  # the call that measures its clock
        if measuring is None:
            if self.egress is None or self.egress.process != os.getpid():
                if self.egress is not None:
                    _OF_PARENTS.append(self.egress)
                self.egress = Egress(tls(), purse.lane.local_addr, purse.lane.proxy)
                self.own_session, self.session = False, self.egress.session
            own: Any = self
            await purse.open(self, own.fetch_time if self.has.get("fetchTime") else None)
        self.meter = purse.meter
        call = measuring or self.new_call()
        if call.signed is None:  # a program may make a call as it ends; whoever had one signed is there or has gone
            call.cancellations = before
        sent, token = call.http_calls, CALL.set(call)
        try:
            while True:
                try:
                    return await super().fetch2(path, api, method, params, config)
                except NoBudget as error:
                    wait_s = purse.may_wait(call, error, self, path, sent=call.http_calls > sent)
                await asyncio.sleep(wait_s)
        finally:
            CALL.reset(token)
            if measuring is None:
                purse.over(call)

    def _checked(self, data: Any, what: str, call: Call, send: Any) -> Any:
        return data

    async def close(self, *words: Any) -> None:
        """Closes it, as ccxt does."""
        own: Any = super()
        await own.close(*words)
        await self.purse.close()
        if self.egress is not None and self.egress.process == os.getpid():
            await self.egress.close()


class Shadow(_Ccxt):
    """Mixed into an instance's class: every call is charged, and leaves at once."""

    purse: Purse

    @staticmethod
    def check(exchange: Any) -> None:
        """Takes any instance."""

    async def fetch2(
        self,
        path: str,
        api: Any = ("public",),
        method: str = "GET",
        params: Any = {},  # noqa: B006
        config: Any = {},  # noqa: B006
    ) -> Any:
        """Charges the call, then lets ccxt sign and send."""
        await self.purse.open(self, None)
        await self.purse.note(charges_of(self, self.purse.meter, path, api, method, params, config))
        return await super().fetch2(path, api, method, params, config)

    async def close(self, *words: Any) -> None:
        """Closes it, as ccxt does."""
        await super().close(*words)
        await self.purse.close()


def _is_pro(exchange: Any) -> bool:
    return any(kind.__module__.startswith("ccxt.pro") for kind in type(exchange).__mro__)
