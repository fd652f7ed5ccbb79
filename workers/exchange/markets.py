"""Each exchange's markets: read from it once for the whole fleet, and shared through Redis.

A worker that finds no copy, or a stale one, takes the lock and reads the markets within the budget; all others take the
copy. While Redis is away each worker reads them itself. Attempts never wait for this: a separate ccxt instance puts the
markets together in a thread, and the lanes get them as a whole.

A copy is compressed JSON and no pickle, so that nobody who can write to Redis can run code here.
"""

import asyncio
import contextlib
import copy
import hashlib
import logging
import zlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec
import redis.asyncio
from msgspec import Struct
from redis.asyncio.lock import Lock

from schemas.runtime import listings, store
from schemas.runtime.clock import clock_s
from schemas.runtime.store import AWAY
from schemas.runtime.tasks import end_tasks

from . import arguments

log = logging.getLogger(__name__)

# A worker that reads renews its lock three times in this time. One that dies meanwhile, or whose word that it has read
# is lost, holds up the others for so long.
LOCK_S: Final = 5.0
# How often an opening lane checks whether another worker has read its markets.
POLL_S: Final = 0.2
# The longest time between two checks whether markets are stale.
LOOK_EVERY_S: Final = 60.0


# The arguments of ccxt's `set_markets`: the parsed markets, and the currencies if the exchange lists them.
_Listed: TypeAlias = tuple[list[Any], dict[str, Any] | None]


class _Held(Struct):
    """One exchange's markets in this process.

    Args:
        source: a ccxt instance that runs no attempts.
        options: what loading the markets changed in its options.
        digest: the copy's.
        read_s: when they were read from the exchange, by the monotonic clock.
        knowledge: what dispatchers need to know of them: its digest, and the content.
    """

    source: Any
    options: dict[str, Any]
    digest: str
    read_s: float
    knowledge: tuple[str, bytes]


class Markets:
    """The markets of all lanes of this process. Lanes with the same key have one copy: it takes 15 MiB.

    It is kept as long as one of them has joined.

    Args:
        client: Redis.
        keep_s: how long a copy is kept there.
        on_new: called when there are other markets than before.
    """

    def __init__(self, client: redis.asyncio.Redis, keep_s: float, on_new: Callable[[], None] = lambda: None) -> None:
        self._client = client
        self._on_new = on_new
        self._keep_s = keep_s
        self._held: dict[str, _Held] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, set[object]] = {}

    def join(self, key: str, user: object) -> None:
        """From now on this one needs the markets with this key."""
        self._users.setdefault(key, set()).add(user)

    def leave(self, key: str, user: object) -> None:
        """It needs them no more; what nobody needs is dropped."""
        users = self._users.get(key, set())
        users.discard(user)
        if not users:
            for each in (self._users, self._held, self._locks):
                each.pop(key, None)

    async def give(self, key: str, exchange: Any, make: Callable[[], Any], max_age_s: float) -> bool:
        """Gives `exchange` markets younger than `max_age_s`, or older ones while another worker is reading.

        Args:
            key: names the exchange, and where its copy lies in Redis; lanes with the same one have the same markets.
            exchange: the ccxt instance of a lane.
            make: makes another instance like it, with the same budget.
            max_age_s: counted from when they were read from the exchange.

        Returns:
            Whether they were read from the exchange now.
        """
        loaded = False
        async with self._locks.setdefault(key, asyncio.Lock()):
            held = self._held.get(key)
            if held is None or clock_s() - held.read_s >= max_age_s:
                before, (held, loaded) = held, await self._renew(key, held, make, max_age_s)
                self._held[key] = held
                if held is not before:
                    self._on_new()
        if exchange.markets is not held.source.markets:
            exchange.set_markets_from_exchange(held.source)
            exchange.options.update(held.options)
            # ccxt awaits this before each call. It has to be done already: a call that is cancelled while it awaits it
            # would cancel it for all others.
            exchange.markets_loading = asyncio.get_running_loop().create_future()
            exchange.markets_loading.set_result(exchange.markets)
        return loaded

    def read_s(self, key: str) -> float:
        """When the markets with this key were read from the exchange, by the monotonic clock."""
        return self._held[key].read_s

    async def publish(self, key: str) -> str:
        """Stores for dispatchers what the lanes with this key list; call it again to keep it from expiring.

        Returns:
            Its digest, which goes into reports.
        """
        digest, body = self._held[key].knowledge
        name = listings.key(digest)
        try:
            if not await self._client.expire(name, listings.KEEP_S):
                await self._client.set(name, body, ex=listings.KEEP_S)
        except AWAY as error:
            # Dispatchers that do not have it yet go on without it.
            store.count_loss(error, "knowledge")
            log.warning("markets_not_shared", extra={"key": name, "error": repr(error)})
        return digest

    async def _renew(
        self, name: str, held: _Held | None, make: Callable[[], Any], max_age_s: float
    ) -> tuple[_Held, bool]:
        lock = self._client.lock(f"{name}:lock", timeout=LOCK_S, blocking=False, thread_local=False)
        try:
            found = await self._take_or_lock(name, lock, held, make, max_age_s)
        except AWAY as error:
            store.count_loss(error, "markets")
            log.warning("markets_not_shared", extra={"key": name, "error": repr(error)})
            return (await _read(make))[0], True
        if found is not None:
            return found, False
        keeping = asyncio.create_task(_keep(lock), name="lock of markets")
        try:
            held, listed = await _read(make)
            await self._share(name, held, listed)
            return held, True
        finally:
            await end_tasks([keeping])
            # An unreleased lock expires by itself.
            with contextlib.suppress(*AWAY):
                await lock.release()

    async def _take_or_lock(
        self, name: str, lock: Lock, held: _Held | None, make: Callable[[], Any], max_age_s: float
    ) -> _Held | None:
        """The fleet's copy, or our old markets while another worker reads; None if this worker has to read them."""
        while True:
            if taken := await self._take(name, held, make, max_age_s):
                return taken
            if await lock.acquire():
                break
            if held is not None:
                return held
            await asyncio.sleep(POLL_S)
        # Another worker may have had the lock since we looked.
        taken = await self._take(name, held, make, max_age_s)
        if taken is not None:
            await lock.release()
        return taken

    async def _take(self, name: str, held: _Held | None, make: Callable[[], Any], max_age_s: float) -> _Held | None:
        """The fleet's copy, if it is fresh enough and can be read."""
        now_us = await store.time_us(self._client, name)
        fields: Any = await self._client.hmget(name, ["at_us", "digest"])
        at_us, digest = fields
        if at_us is None or digest is None:
            return None
        age_s = max(0.0, (now_us - store.shaped(at_us, int)) / 1e6)
        read_s = clock_s() - age_s
        if age_s >= max_age_s:
            return None
        if held is not None and held.digest == digest.decode():
            held.read_s = max(held.read_s, read_s)
            return held
        body: Any = await self._client.hget(name, "body")
        exchange = make()
        try:
            options = await asyncio.to_thread(_unpack, body, exchange)
            knowledge = await asyncio.to_thread(_know, exchange)
        except Exception as error:  # whatever is wrong with the copy, the exchange has the markets
            log.warning("markets_not_shared", extra={"key": name, "error": repr(error)})
            return None
        finally:
            await exchange.close()
        log.info("markets_taken", extra={"key": name, "markets": len(exchange.markets), "age_s": round(age_s, 1)})
        return _Held(exchange, options, digest.decode(), read_s, knowledge)

    async def _share(self, name: str, held: _Held, listed: _Listed) -> None:
        try:
            body, held.digest = await asyncio.to_thread(_pack, held.options, listed)
            now_us = await store.time_us(self._client, name)
            fields: Any = {"at_us": now_us, "digest": held.digest, "body": body}
            async with self._client.pipeline() as pipeline:
                pipeline.hset(name, mapping=fields)
                pipeline.pexpire(name, int(self._keep_s * 1000))
                await pipeline.execute()
        except (*AWAY, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, AWAY):
                store.count_loss(error, "markets")
            # If ccxt keeps something in them that JSON can't express, each worker reads them itself.
            log.warning("markets_not_shared", extra={"key": name, "error": repr(error)})


async def _keep(lock: Lock) -> None:
    """Renews a lock until cancelled. Where it is lost another worker reads too, which costs budget and harms nobody."""
    while True:
        await asyncio.sleep(LOCK_S / 3)
        with contextlib.suppress(*AWAY):
            await lock.reacquire()


async def _read(make: Callable[[], Any]) -> tuple[_Held, _Listed]:
    """Reads the markets from the exchange; raises what ccxt and the budget raise."""
    exchange = make()
    before = copy.deepcopy(exchange.options)
    listed: _Listed = [], None

    def listen(markets: Any, currencies: Any = None) -> None:
        nonlocal listed
        listed = exchange.to_array(markets), currencies

    exchange.set_markets = listen
    try:
        await exchange.load_markets_helper(True)
        del exchange.set_markets
        markets = await asyncio.to_thread(exchange.set_markets, listed[0], listed[1])
        arguments.check_answer("load_markets", {}, markets, http_calls=1)
    finally:
        await exchange.close()
    options = {name: value for name, value in exchange.options.items() if name not in before or before[name] != value}
    log.info("markets_read", extra={"exchange": exchange.id, "markets": len(exchange.markets)})
    return _Held(exchange, options, "", clock_s(), await asyncio.to_thread(_know, exchange)), listed


def _know(exchange: Any) -> tuple[str, bytes]:
    """What dispatchers need to know of the markets: its digest, and the content."""
    listed = [
        listings.Listing(symbol, str(market["id"]), str(market.get("quote") or ""), str(market.get("type") or ""))
        for symbol, market in sorted(exchange.markets.items())
    ]
    # ccxt's classes have one table of other names (4.5.90): Hyperliquid's, where UBTC/USDC is BTC/USDC.
    other: dict[str, str] = exchange.options.get("spotCurrencyMapping") or {}
    aliases = [
        f"{alias}/{listing.quote}"
        for alias, base in other.items()
        for listing in listed
        if listing.symbol == f"{exchange.safe_currency_code(base)}/{listing.quote}"
    ]
    return listings.pack(listings.Knowledge(exchange.id, listed, list(exchange.timeframes or ()), aliases))


def _pack(options: dict[str, Any], listed: _Listed) -> tuple[bytes, str]:
    """The markets as compressed JSON, one a line: encoding all in one call would hold up the event loop."""
    markets, currencies = listed
    lines = [msgspec.json.encode({"currencies": currencies, "options": options})]
    lines += [msgspec.json.encode(market) for market in markets]
    body = b"\n".join(lines)
    return zlib.compress(body, 1), hashlib.sha256(body).hexdigest()


def _unpack(body: bytes, exchange: Any) -> dict[str, Any]:
    """Gives the markets to a new instance; returns the options that loading them sets."""
    head, *lines = zlib.decompress(body).split(b"\n")
    first: dict[str, Any] = msgspec.json.decode(head)
    options: dict[str, Any] = first["options"]
    exchange.options.update(options)
    exchange.set_markets([msgspec.json.decode(line) for line in lines], first["currencies"])
    arguments.check_answer("load_markets", {}, exchange.markets, http_calls=1)
    return options
