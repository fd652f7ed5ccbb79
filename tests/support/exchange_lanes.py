"""What the tests of lanes share: lanes that are closed at the end, and an HTTP server with given answers."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio
from aiohttp import web

from deploy.simulator.accounts import Account
from schemas.accounts import Secret
from schemas.config import LaneConfig, LimitsConfig
from schemas.messages import Http
from schemas.runtime.standstill import StillFor, unknown
from schemas.runtime.store import connect
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.budget.ledger import Ledger
from workers.exchange.bounds import Bounds
from workers.exchange.call import Call
from workers.exchange.charged import ccxt
from workers.exchange.egress import Egress, tls
from workers.exchange.errors import NoBudget
from workers.exchange.lane_exchange import LaneExchange, Setup
from workers.exchange.markets import Markets
from workers.limits.costs import Charge

BTC_USDT: dict[str, Any] = {
    "id": "BTCUSDT",
    "symbol": "BTC/USDT",
    "base": "BTC",
    "quote": "USDT",
    "baseId": "BTC",
    "quoteId": "USDT",
    "type": "spot",
    "spot": True,
    "active": True,
    "precision": {},
    "limits": {},
    "info": {},
}


class CountedBudget(Budget):
    """The real budget, and a list of what it granted, less what lapsed because the call would have left late.

    `asked` is how often it was asked.
    """

    def __init__(self, client: redis.asyncio.Redis, scope: str, account: str = "", still_s: StillFor = unknown) -> None:
        super().__init__(Ledger(client, scope, account=account, still_s=still_s))
        self.granted: list[Sequence[Charge]] = []
        self._at_us: list[int] = []
        self.asked = 0

    async def acquire(
        self, charges: Sequence[Charge], *, max_wait_s: float, bulk: bool = False, grant: Grant | None = None
    ) -> Grant | Refusal:
        self.asked += 1
        answer = await super().acquire(charges, max_wait_s=max_wait_s, bulk=bulk, grant=grant)
        if isinstance(answer, Grant):
            self.granted.append(charges)
            self._at_us.append(answer.at_us)
        return answer

    def is_late(self, grant: Grant, now_s: float) -> bool:
        late = super().is_late(grant, now_s)
        if late:
            number = self._at_us.index(grant.at_us)
            del self.granted[number], self._at_us[number]
        return late


class PersistentLane(LaneExchange):
    """A lane of a worker that may be too busy to send in its turn: then it is asked again, as dispatchers would."""

    async def open(self, **how: float) -> None:
        while True:
            try:
                return await super().open(**how)
            except NoBudget as error:
                await _rested(error)

    async def call(self, method: str, args: Mapping[str, Any], call: Call) -> Any:
        while True:
            try:
                return await super().call(method, args, call)
            except NoBudget as error:
                await _rested(error)

    async def call_http(self, http: Http, call: Call) -> dict[str, Any]:
        while True:
            try:
                return await super().call_http(http, call)
            except NoBudget as error:
                await _rested(error)


async def _rested(error: NoBudget) -> None:
    if error.reason != "busy":
        raise error
    await asyncio.sleep(error.wait_s)


class Lanes:
    """Makes lanes on one Redis, as one worker process would."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        self.markets = Markets(client, keep_s=60)
        self.ssl_context = tls()
        self._open: list[LaneExchange | Egress] = []

    def egress(self, **settings: Any) -> Egress:
        """A new connection pool."""
        egress = Egress(self.ssl_context, **settings)
        self._open.append(egress)
        return egress

    def lane(
        self,
        exchange: str,
        settings: dict[str, Any],
        *,
        scope: str = "default",
        egress: Egress | None = None,
        markets: Markets | None = None,
        http_timeout_s: float = 5,
        limits: LimitsConfig | None = None,
        account: Account | None = None,
        budget: CountedBudget | None = None,
        bounds: Bounds | None = None,
    ) -> tuple[LaneExchange, CountedBudget]:
        """A lane and its budget."""
        budget = budget or CountedBudget(self.client, f"{exchange}:{scope}", account.key if account else "")
        config = LaneConfig(exchange=exchange, ccxt=settings, account=account.name if account else None)
        credentials: dict[str, Secret] = {}
        if account:
            credentials = {"apiKey": Secret(account.key), "secret": Secret(account.secret)}
            if exchange in ("okx", "kucoin"):
                credentials["password"] = Secret(account.passphrase)
        markets, egress = markets or self.markets, egress or self.egress()
        setup = Setup(lane=config, http_timeout_s=http_timeout_s, limits=limits, credentials=credentials)
        lane = PersistentLane(exchange, setup, egress, budget, markets, bounds)
        self._open.append(lane)
        return lane, budget

    def forget(self, lane: LaneExchange) -> None:
        """Forgets a lane that was closed."""
        self._open.remove(lane)

    async def close(self) -> None:
        """Closes all that was made."""
        for thing in reversed(self._open):
            await thing.close()


@asynccontextmanager
async def lanes_on(redis_url: str) -> AsyncGenerator[Lanes]:
    """Lanes with their budgets in that Redis."""
    async with connect(redis_url, timeout_s=5) as client:
        lanes = Lanes(client)
        try:
            yield lanes
        finally:
            await lanes.close()


def call(
    exchange: str, *, max_wait_s: float = 20, timeout_s: float = 30, bulk: bool = False, account: str | None = None
) -> Call:
    """An attempt with much time."""
    return Call(exchange, max_wait_s=max_wait_s, timeout_s=timeout_s, bulk=bulk, account=account)


class Answers:
    """A real HTTP server that gives every request the same answer.

    Args:
        answer: status, headers and body; change it at any time.
        by_path: bodies for paths that hold these words.
        held_path: paths that hold this are not answered until it changes.
        broken: the body ends before its length.
        body_waits: the body of `answer` is not sent until this changes.
        heads: how many heads of such were sent.
        hits: the paths that were asked for.
        peers: the addresses that asked.
    """

    def __init__(self) -> None:
        self.answer: tuple[int, dict[str, str], str] = (200, {}, "{}")
        self.by_path: dict[str, str] = {}
        self.held_path = ""
        self.broken = self.body_waits = False
        self.heads = 0
        self.hits: list[str] = []
        self.peers = set[str | None]()
        self.url = ""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.hits.append(request.path)
        self.peers.add(request.remote)
        while self.held_path and self.held_path in request.path:
            await asyncio.sleep(0.01)
        for part, body in self.by_path.items():
            if part in request.path:
                return web.Response(text=body, content_type="application/json")
        status, headers, body = self.answer
        if self.broken:
            head = web.StreamResponse(status=status, headers={"Content-Length": str(len(body) + 100), **headers})
            await head.prepare(request)
            await head.write(body.encode())
            assert request.transport is not None
            request.transport.close()
            return head
        if self.body_waits:
            head = web.StreamResponse(status=status, headers={"Content-Type": "application/json", **headers})
            await head.prepare(request)
            self.heads += 1
            while self.body_waits:
                await asyncio.sleep(0.01)
            await head.write(body.encode())
            return head
        return web.Response(status=status, headers={"Content-Type": "application/json", **headers}, body=body.encode())

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncGenerator["Answers"]:
        """Serves on a free port of 127.0.0.1."""
        answers = cls()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answers._handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        answers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield answers
        finally:
            await runner.cleanup()

    def settings(self, exchange: str) -> dict[str, Any]:
        """Points any of ccxt's classes here, with one market already known."""
        described: Any = getattr(ccxt, exchange)().describe()
        host = self.url.removeprefix("http://")
        settings: dict[str, Any] = {
            "urls": {"api": _redirected(described["urls"]["api"], self.url)},
            "markets": {"BTC/USDT": BTC_USDT},
        }
        if exchange == "htx":
            settings |= {"hostname": host, "urls": {**settings["urls"], "hostnames": {"spot": host, "contract": host}}}
        return settings


def _redirected(urls: Any, base: str) -> Any:
    if isinstance(urls, dict):
        sections: dict[str, Any] = urls  # pyright: ignore[reportUnknownVariableType]
        return {section: _redirected(url, base) for section, url in sections.items()}
    return re.sub(r"^https?://[^/]+", base, urls)
