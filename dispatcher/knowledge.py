"""Which lanes list a symbol and have a time frame, from what workers publish; and how that is corrected.

A lane is passed over only for what is known for sure: all workers that serve it have told, and none of their contents
has the symbol. ccxt takes more names than it lists: the exchange's own ids, ``BTC/USDT`` for ``BTC/USDT:USDT`` where
settings say so, options that have expired. What is passed on in doubt costs nothing, as the worker's ccxt looks again
before anything is sent.
"""

import asyncio
import difflib
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import redis.asyncio
from msgspec import DecodeError, Struct

from schemas import knowledge
from schemas.messages import ErrorCode, Request
from schemas.store import AWAY

log = logging.getLogger(__name__)

# A worker that has not told for so long is gone. They tell every 5 s.
WORKER_GONE_S: Final = 20.0
# A symbol that a lane refused is asked there again after this, or when its markets have changed.
CORRECTED_S: Final = 600.0
CORRECTIONS_KEPT: Final = 10_000
LOOK_EVERY_S: Final = 0.2
# After an error of Redis, or where a content is not there.
AGAIN_S: Final = 2.0
# So many are compared with a wrong symbol, to name those that may be meant: each costs 10 µs.
POOL: Final = 50
LONGEST_TIMEFRAME: Final = 64

_NOTHING: Final = frozenset[str]()
_SEPARATOR: Final = re.compile(r"[/_:-]")
_NAME: Final = re.compile(r"(?!.*\.\.)[^?#\r\n]{1,256}")


class Asked(NamedTuple):
    """What a request asks of a lane beyond its method; what can be none is left to the worker to refuse."""

    symbols: tuple[str, ...]
    timeframe: str


class Lack(Struct, frozen=True):
    """Why no lane can take a request."""

    code: ErrorCode
    message: str


class Known:
    """One content, made ready to be looked up.

    Attributes:
        by_base: symbols by what comes before their first separator.
        bases: those by their first two letters.
    """

    def __init__(self, content: knowledge.Knowledge) -> None:
        self.timeframes = tuple(content.timeframes)
        self._frames = frozenset(content.timeframes)
        names: set[str] = set(content.aliases)
        self.by_base: dict[str, list[str]] = {}
        for listing in content.listings:
            symbol = listing.symbol
            names |= {symbol, listing.id, symbol.partition(":")[0]}
            self.by_base.setdefault(_base(symbol), []).append(symbol)
        self._names = frozenset(names)
        self.bases: dict[str, list[str]] = {}
        for base in self.by_base:
            self.bases.setdefault(base[:2], []).append(base)

    def lists(self, symbols: Iterable[str]) -> bool:
        """Whether ccxt may take all these for symbols here."""
        return all(symbol in self._names or _is_option(symbol) for symbol in symbols)

    def has_frame(self, timeframe: str) -> bool:
        """Whether there are candles of this length."""
        return not self._frames or timeframe in self._frames


class LaneKnowledge:
    """What all lanes can do beyond their methods. Pure: the clock is an argument.

    Attributes:
        version: changes with everything that changes an answer.
    """

    def __init__(self) -> None:
        self.version = 0
        self._known: dict[str, Known] = {}
        self._told: dict[str, dict[str, tuple[str, float]]] = {}  # lane -> worker -> digest, when it was told
        self._of: dict[str, frozenset[str]] = {}  # lane -> digests
        self._off_until_s: dict[tuple[str, str, str], float] = {}  # lane, method, symbol

    def hear(self, worker: str, lane: str, digest: str, now_s: float) -> None:
        """A worker told what a lane can do."""
        told = self._told.setdefault(lane, {})
        told[worker] = digest, now_s
        for gone in [name for name, (_, heard_s) in told.items() if heard_s < now_s - WORKER_GONE_S]:
            del told[gone]
        self._settle(lane)
        while self._off_until_s and next(iter(self._off_until_s.values())) <= now_s:  # in the order of their times
            del self._off_until_s[next(iter(self._off_until_s))]
            self.version += 1

    def forget(self, worker: str, lane: str) -> None:
        """A worker serves a lane no more."""
        if self._told.get(lane, {}).pop(worker, None):
            self._settle(lane)

    def _settle(self, lane: str) -> None:
        digests = frozenset(digest for digest, _ in self._told[lane].values())
        if digests == self._of.get(lane):
            return
        self._of[lane] = digests
        self._off_until_s = {key: until_s for key, until_s in self._off_until_s.items() if key[0] != lane}
        used = frozenset[str]().union(*self._of.values())
        self._known = {digest: known for digest, known in self._known.items() if digest in used}
        self.version += 1

    def missing(self) -> set[str]:
        """The digests whose contents are still to be fetched."""
        return set[str]().union(*self._of.values()) - self._known.keys()

    def learn(self, digest: str, known: Known) -> None:
        """The content of a digest."""
        self._known[digest] = known
        self.version += 1

    def correct(self, lane: str, request: Request, now_s: float) -> None:
        """A lane had no such symbol, whatever it lists: for this method, as another may well take the symbol."""
        symbols = asked(request.args).symbols
        # Further parameters may be what it did not like.
        if len(symbols) == 1 and not request.args.get("params") and len(self._off_until_s) < CORRECTIONS_KEPT:
            key = lane, request.method, symbols[0]
            self._off_until_s.pop(key, None)
            self._off_until_s[key] = now_s + CORRECTED_S
            self.version += 1

    def able(self, lanes: Sequence[str], method: str, of: Asked) -> Sequence[str] | Lack:
        """Those of the lanes that can take a request, as far as is known; `lanes` itself where all can."""
        able = lanes
        symbols, timeframe = of
        if timeframe:
            able = self._having(able, lambda known: known.has_frame(timeframe))
            if not able:
                return Lack(ErrorCode.NOT_SUPPORTED, self._no_frame(lanes, timeframe))
        if symbols:
            listing = self._having(able, lambda known: known.lists(symbols))
            if off := self._off_until_s:
                on = [lane for lane in listing if not any((lane, method, each) in off for each in symbols)]
                listing = listing if len(on) == len(listing) else on
            if not listing:
                return Lack(ErrorCode.BAD_SYMBOL, self._no_symbol(able, symbols))
            able = listing
        return able

    def _having(self, lanes: Sequence[str], has: Callable[[Known], bool]) -> Sequence[str]:
        verdicts: dict[frozenset[str], bool] = {}  # many lanes share few contents
        having: list[str] = []
        for lane in lanes:
            digests = self._of.get(lane, _NOTHING)
            verdict = verdicts.get(digests)
            if verdict is None:
                contents = [self._known.get(digest) for digest in digests]
                verdict = verdicts[digests] = not contents or any(known is None or has(known) for known in contents)
            if verdict:
                having.append(lane)
        return lanes if len(having) == len(lanes) else having

    def _contents(self, lanes: Sequence[str]) -> list[Known]:
        digests = {digest for lane in lanes for digest in self._of.get(lane, _NOTHING)}
        return [self._known[digest] for digest in sorted(digests) if digest in self._known]

    def _no_frame(self, lanes: Sequence[str], timeframe: str) -> str:
        frames = dict.fromkeys(frame for known in self._contents(lanes) for frame in known.timeframes)
        return f"none of {', '.join(lanes)} has the timeframe {timeframe!r}; they have {', '.join(frames)}"

    def _no_symbol(self, lanes: Sequence[str], symbols: Sequence[str]) -> str:
        contents = self._contents(lanes)
        strange = [symbol for symbol in symbols if not any(known.lists([symbol]) for known in contents)]
        if not strange:  # each of them somewhere, or listed and refused
            return f"none of {', '.join(lanes)} has {', '.join(map(repr, symbols[:5]))} for this method"
        near = dict.fromkeys(like for symbol in strange[:3] for like in _alike(symbol, contents))
        hint = f"; they list {', '.join(near)}" if near else ""
        return f"none of {', '.join(lanes)} lists {', '.join(map(repr, strange[:5]))}{hint}"


async def follow(lanes: LaneKnowledge, client: redis.asyncio.Redis) -> None:
    """Fetches the contents that workers have told of, until it is cancelled. Without Redis only methods are known."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        for digest in lanes.missing():
            try:
                body: Any = await client.get(knowledge.key(digest))
                if body is None:  # emptied; the workers put it there again
                    raise LookupError(digest)  # noqa: TRY301
                lanes.learn(digest, await asyncio.to_thread(_read, body))
            except (*AWAY, LookupError, DecodeError, zlib.error) as error:
                log.warning("knowledge_not_read", extra={"digest": digest, "error": repr(error)})
                await asyncio.sleep(AGAIN_S)


def _read(body: bytes) -> Known:
    return Known(knowledge.unpack(body))


def asked(args: Mapping[str, Any]) -> Asked:
    """What a request's arguments ask of a lane."""
    one, many, timeframe = args.get("symbol"), args.get("symbols"), args.get("timeframe")
    names: tuple[Any, ...] = tuple(many) if isinstance(many, list) else () if one is None else (one,)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        names = ()
    return Asked(names, timeframe if isinstance(timeframe, str) and len(timeframe) < LONGEST_TIMEFRAME else "")


def _is_option(symbol: str) -> bool:
    """Whether ccxt might take it for an option that has expired, which no list has any more."""
    return "-C" in symbol or "-P" in symbol or symbol.startswith(("C-", "P-"))


def _alike(symbol: str, contents: Sequence[Known]) -> list[str]:
    """Symbols that may be meant: of the same base, or of one that begins alike and is nearly the same."""
    base = _base(symbol)
    bases = [base]
    if not any(base in known.by_base for known in contents):
        pool = dict.fromkeys(other for known in contents for other in known.bases.get(base[:2], ()))
        bases = difflib.get_close_matches(base, list(pool)[:POOL], n=3)
    symbols = dict.fromkeys(like for known in contents for near in bases for like in known.by_base.get(near, ()))
    return difflib.get_close_matches(symbol.upper(), list(symbols)[:POOL], n=3, cutoff=0.5)


def _base(symbol: str) -> str:
    """What comes before the first separator, in capitals: of BTC/USDT, btc-usdt and BTC_USDT the same."""
    return _SEPARATOR.split(symbol.upper(), maxsplit=1)[0]
