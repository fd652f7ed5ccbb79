"""ccxt's blocking classes with every call charged, or only counted.

Their budgets live in an event loop in a thread of its own, one for the process. A call waits there for its instant, and
is sent by the thread that makes it.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import ccxt  # pyright: ignore[reportMissingTypeStubs]
from ccxt.base.errors import DDoSProtection, RateLimitExceeded  # pyright: ignore[reportMissingTypeStubs]

from schemas.errors import ConfigError

from ..budget.budget import LATE_TRIES
from ..budget.grants import Grant
from ..exchange.call import CALL, Call
from ..exchange.charged import Send, charges_of, note_answer, note_head, refusal_of
from ..exchange.egress import PASSAGE, Late
from ..exchange.errors import NoBudget, means_too_many
from .purse import Purse
from .session import Session, check

T = TypeVar("T")

if TYPE_CHECKING:

    class _Ccxt:
        id: str
        has: dict[str, Any]
        session: Any

        def fetch2(self, path: str, api: Any, method: str, params: Any, config: Any) -> Any: ...
        def fetch(self, url: str, method: str, headers: Any, body: Any) -> Any: ...
        def fetch_time(self) -> Any: ...
        def handle_http_status_code(self, code: int, reason: str, url: str, method: str, body: str) -> None: ...
        def on_rest_response(
            self, code: int, reason: str, url: str, method: str, headers: Any, body: str, *request: Any
        ) -> Any: ...

else:
    _Ccxt = ccxt.Exchange


_loops: Final = dict[int, asyncio.AbstractEventLoop]()
_starting: Final = [threading.Lock()]


def _of_a_fork() -> None:
    _starting[0] = threading.Lock()  # somebody may have held it


os.register_at_fork(after_in_child=_of_a_fork)


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process's thread; a fork has none, and makes another."""
    with _starting[0]:
        if (loop := _loops.get(os.getpid())) is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="ccxt-fleet direct", daemon=True).start()
        return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs something in the event loop of the thread; what interrupts the wait (Ctrl-C) cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def drop(purse: Purse) -> None:
    """Closes the purse of an instance that is garbage, and waits for nothing.

    Python collects garbage in whatever thread runs, so also in that of the event loop, which must not wait for itself.
    """
    loop = _loops.get(os.getpid())
    if loop is not None and purse.is_open and not sys.is_finalizing():
        asyncio.run_coroutine_threadsafe(purse.close(), loop)


_SEND: Final = cast("ContextVar[Send]", PASSAGE)


class BlockingCalls(_Ccxt):
    """Mixed into an instance's class: every call waits for budget. What comes back is ccxt's own affair."""

    purse: Purse

    @staticmethod
    def check(exchange: Any) -> None:
        """Refuses an instance that would leave from another address than it is charged for; raises ConfigError."""
        for name in ("socksProxy", "socks_proxy", "proxyUrl", "proxy_url", "proxies"):
            if getattr(exchange, name, None):
                raise ConfigError(f"{exchange.id}: {name} does not work with charged: give httpsProxy")
        check(exchange.session)

    def fetch2(
        self,
        path: str,
        api: Any = ("public",),
        method: str = "GET",
        params: Any = {},  # noqa: B006
        config: Any = {},  # noqa: B006
    ) -> Any:
        """Waits for budget, then lets ccxt sign and send."""
        purse = self.purse
        measuring = CALL.get(None)  # the call that measures its clock
        if measuring is None:
            run(purse.open(self, self._time if self.has.get("fetchTime") else None))
        call = measuring or purse.new_call(self)
        sent, token = call.http_calls, CALL.set(call)
        try:
            while True:
                try:
                    return self._send(call, path, api, method, params, config)
                except NoBudget as error:
                    wait_s = purse.may_wait(call, error, self, path, sent=call.http_calls > sent)
                time.sleep(wait_s)
        finally:
            CALL.reset(token)
            if measuring is None:
                purse.over(call)

    def _send(self, call: Call, path: str, api: Any, method: str, params: Any, config: Any) -> Any:
        meter = self.purse.meter
        apis = (api,) if isinstance(api, str) else tuple(api)
        charges = charges_of(self, meter, path, api, method, params, config)
        reports = meter.costs.reports(apis, method, path)
        late: list[Grant] = []  # the reservation of a call that would have been sent too late: it is moved
        try:
            for _ in range(LATE_TRIES):
                send = Send(meter, f"{apis} {path}", charges, run(meter.pay(call, charges, late)))
                send.reports = reports
                token = _SEND.set(send)
                try:
                    return super().fetch2(path, api, method, params, config)
                except Late:
                    late.append(send.grant)
                finally:
                    _SEND.reset(token)
                    if not send.http_calls and send.grant not in late:
                        run(meter.budget.back(charges, send.grant))
            raise meter.too_busy(charges)
        finally:
            for each in late:
                run(meter.budget.back(charges, each))

    def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """Sends one HTTP call at its instant."""
        meter, call, send = self.purse.meter, CALL.get(), _SEND.get()
        if send.http_calls:
            send.grant = run(meter.pay(call, send.charges, []))  # ccxt repeats a call by itself
        send.http_calls += 1
        send.begin(call.sends())
        if getattr(self.session, "process", 0) != os.getpid():
            self.session = Session(self.session, self.purse.lane.local_addr)
        try:
            return super().fetch(url, method, headers, body)
        except Late:
            call.http_calls -= 1
            if send.reused:  # the next ones ask for an instant that is so much further ahead
                meter.budget.ledger.punctuality.late((send.left_s - send.grant.due_s) * 1e6)
            raise
        except (DDoSProtection, RateLimitExceeded):
            if send.pause is None and means_too_many(self.id, send.heard):
                send.pause = refusal_of(send)
            raise
        finally:
            run(self._settle(call, send))

    async def _settle(self, call: Call, send: Send) -> None:
        """The call is over: reports when it arrived, and what its answer says of limits."""
        if send.answered_s:
            send.on_answer()
        send.note(call)
        note_head(send)
        if send.answered_s and (send.pause is not None or send.count is not None):
            heed = self.purse.meter.heed
            send.heard.pause = await heed(send.charges, send.grant, send.late_us, send.pause, send.count)

    def on_rest_response(
        self, code: int, reason: str, url: str, method: str, headers: Any, body: str, *request: Any
    ) -> Any:
        """Called by ccxt for every answer, before it looks for errors."""
        note_answer(_SEND.get(), code, headers, body)
        return super().on_rest_response(code, reason, url, method, headers, body, *request)

    def handle_http_status_code(self, code: int, reason: str, url: str, method: str, body: str) -> None:
        """Called by ccxt for every answer in whose body it found no error."""
        _SEND.get().heard.by_status = True
        super().handle_http_status_code(code, reason, url, method, body)

    async def _time(self) -> Any:
        return await asyncio.to_thread(self.fetch_time)  # with the context, and so the call, of this task

    def __del__(self) -> None:
        """In place of ccxt's, which closes it."""
        drop(self.purse)

    def close(self, *_: Any) -> None:
        """Gives up its part of the limits; ccxt's blocking classes have nothing else to close."""
        if self.purse.is_open:
            run(self.purse.close())


class BlockingShadow(_Ccxt):
    """Mixed into an instance's class: every call is charged, and leaves at once."""

    purse: Purse

    @staticmethod
    def check(exchange: Any) -> None:
        """Takes any instance."""

    def fetch2(
        self,
        path: str,
        api: Any = ("public",),
        method: str = "GET",
        params: Any = {},  # noqa: B006
        config: Any = {},  # noqa: B006
    ) -> Any:
        """Charges the call, then lets ccxt sign and send."""
        run(self.purse.open(self, None))
        run(self.purse.note(charges_of(self, self.purse.meter, path, api, method, params, config)))
        return super().fetch2(path, api, method, params, config)

    def __del__(self) -> None:
        """In place of ccxt's, which closes it."""
        drop(self.purse)

    def close(self, *_: Any) -> None:
        """Gives up its part of the limits."""
        if self.purse.is_open:
            run(self.purse.close())
