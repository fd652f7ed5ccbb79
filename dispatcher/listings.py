"""Which lanes list a symbol and have a timeframe, from what workers publish; and corrections of that.

A lane is passed over only if it certainly lacks the symbol: all workers that serve it have reported what they list, and
none of their contents has it. ccxt takes more names than it lists: the exchange's own ids, ``BTC/USDT`` for
``BTC/USDT:USDT`` where settings say so, options that have expired. A request that is passed on in doubt costs nothing,
as the worker's ccxt checks it again before anything is sent.
"""

import asyncio
import difflib
import logging
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import redis.asyncio
from msgspec import DecodeError, Struct

from schemas.messages import ErrorCode, Request
from schemas.runtime import listings, store
from schemas.runtime.store import AWAY

from . import slips

log = logging.getLogger(__name__)

# A worker whose last digest is so old is gone. Workers report theirs every 5 s.
WORKER_GONE_S: Final = 20.0
# A symbol that a lane refused is sent there again after this time, or when the lane's markets have changed.
CORRECTED_S: Final = 600.0
CORRECTIONS_KEPT: Final = 10_000
LOOK_EVERY_S: Final = 0.2
# The pause after an error of Redis, and while a content is not in Redis.
AGAIN_S: Final = 2.0
# The most symbols that are compared with a wrong one, to suggest what may be meant. Each comparison takes 10 µs.
POOL: Final = 50
LONGEST_TIMEFRAME: Final = 64

# Sets of contents (see `Contents`): the bit of all that is not known, and every bit.
DOUBT: Final = 1
ALL: Final = -1

_SEPARATOR: Final = re.compile(r"[/_:-]")
_NAME: Final = re.compile(r"(?!.*\.\.)[^?#\r\n]{1,256}")


class Asked(NamedTuple):
    """What a request asks of a lane beyond its method. Arguments of a wrong form are left to the worker to refuse."""

    symbols: tuple[str, ...]
    timeframe: str


class Lack(Struct, frozen=True):
    """Why no lane can take a request."""

    code: ErrorCode
    message: str


class Content:
    """What one digest stands for, indexed: what a lane lists.

    Attributes:
        timeframes: as the exchange lists them.
        names: all names that ccxt may take for a symbol here, without options: any of those may have expired.
        by_base: symbols by their base, the part before the first separator.
        by_letters: symbols by their letters and digits, those of ``BTC/USDT`` also for ``BTC/USDT:USDT``.
        bases: bases by their first two letters.
    """

    def __init__(self, knowledge: listings.Knowledge) -> None:
        self.timeframes = tuple(knowledge.timeframes)
        names: set[str] = set(knowledge.aliases)
        self.by_base: dict[str, list[str]] = {}
        self.by_letters: dict[str, list[str]] = {}
        for listing in knowledge.listings:
            symbol = listing.symbol
            names |= {symbol, listing.id, symbol.partition(":")[0]}
            self.by_base.setdefault(_base(symbol), []).append(symbol)
            self.by_letters.setdefault(slips.letters(symbol.partition(":")[0]), []).append(symbol)
        self.names = frozenset(name for name in names if _NAME.fullmatch(name) and not _is_option(name))
        self.bases: dict[str, list[str]] = {}
        for base in self.by_base:
            self.bases.setdefault(base[:2], []).append(base)


class Contents:
    """All contents that were fetched, as one table, so that a look-up of many symbols costs no more with many contents.

    A set of contents is an integer with a bit for each. `DOUBT` is the bit of all that is not known; every set has it.
    """

    def __init__(self) -> None:
        self.by_digest: dict[str, Content] = {}
        self._bits: dict[str, int] = {}
        self._used = DOUBT
        self._listing: dict[str, int] = {}
        self._framed: dict[str, int] = {}
        self._frameless = DOUBT

    def add(self, digest: str, content: Content) -> None:
        """Adds a content."""
        bit = ~self._used & (self._used + 1)  # the lowest free one
        self._used |= bit
        self.by_digest[digest], self._bits[digest] = content, bit
        for name in content.names:
            self._listing[name] = self._listing.get(name, DOUBT) | bit
        for frame in content.timeframes:
            self._framed[frame] = self._framed.get(frame, 0) | bit
        if not content.timeframes:
            self._frameless |= bit

    def drop(self, digest: str) -> None:
        """Forgets a content."""
        content, bit = self.by_digest.pop(digest), self._bits.pop(digest)
        for name in content.names:
            self._listing[name] ^= bit
            if self._listing[name] == DOUBT:
                del self._listing[name]
        for frame in content.timeframes:
            self._framed[frame] &= ~bit
        self._frameless &= ~bit
        self._used ^= bit

    def of(self, digests: Collection[str]) -> int:
        """These contents; with `DOUBT` if one is not here, or there is none."""
        contents = 0 if digests else DOUBT
        for digest in digests:
            contents |= self._bits.get(digest, DOUBT)
        return contents

    def listing(self, symbols: Sequence[str]) -> int:
        """The contents where ccxt may take all these names for symbols; `ALL` if one can't be a symbol at all."""
        contents, listing = ALL, self._listing
        for symbol in symbols:
            if symbol in listing:
                contents &= listing[symbol]
            elif not _NAME.fullmatch(symbol):
                return ALL
            elif not _is_option(symbol):
                contents &= DOUBT
        return contents

    def framed(self, timeframe: str) -> int:
        """The contents that have candles of this length, or don't say."""
        return self._framed.get(timeframe, 0) | self._frameless


class LaneKnowledge:
    """What all lanes can do beyond their methods. Pure: the clock is an argument."""

    def __init__(self) -> None:
        self._contents = Contents()
        self._reported: dict[str, dict[str, tuple[str, float]]] = {}  # lane -> worker -> digest, when it was reported
        self._digests: dict[str, frozenset[str]] = {}  # lane -> digests
        self._sets: dict[str, int] = {}  # lane -> the same as a set of contents
        self._off_until_s: dict[tuple[str, str, str], float] = {}  # lane, method, symbol
        self._off: dict[str, dict[str, set[str]]] = {}  # method -> symbol -> lanes

    def observe(self, worker: str, lane: str, digest: str, now_s: float) -> None:
        """Takes in the digest of what a lane lists, from a worker's report."""
        reported = self._reported.setdefault(lane, {})
        reported[worker] = digest, now_s
        for gone in [name for name, (_, at_s) in reported.items() if at_s < now_s - WORKER_GONE_S]:
            del reported[gone]
        self._settle(lane)
        while self._off_until_s and next(iter(self._off_until_s.values())) <= now_s:  # in the order of their times
            self._lift(next(iter(self._off_until_s)))

    def forget(self, worker: str, lane: str) -> None:
        """A worker serves a lane no more."""
        if self._reported.get(lane, {}).pop(worker, None):
            self._settle(lane)

    def _settle(self, lane: str) -> None:
        digests = frozenset(digest for digest, _ in self._reported[lane].values())
        if digests == self._digests.get(lane):
            return
        self._digests[lane] = digests
        self._sets[lane] = self._contents.of(digests)
        for key in [key for key in self._off_until_s if key[0] == lane]:
            self._lift(key)
        for digest in self._contents.by_digest.keys() - frozenset[str]().union(*self._digests.values()):
            self._contents.drop(digest)

    def missing(self) -> set[str]:
        """The digests whose contents are still to be fetched."""
        return set[str]().union(*self._digests.values()) - self._contents.by_digest.keys()

    def learn(self, digest: str, content: Content) -> None:
        """Takes in the content of a digest."""
        if digest in self._contents.by_digest:
            return
        self._contents.add(digest, content)
        self._sets = {lane: self._contents.of(digests) for lane, digests in self._digests.items()}

    def correct(self, lane: str, request: Request, now_s: float) -> None:
        """A lane refused a request's symbol, perhaps though it lists it. It gets no more such requests for a while."""
        symbols = asked(request.args).symbols
        # Where there are several symbols, or further parameters, it is not known which of them was refused.
        if len(symbols) != 1 or request.args.get("params") or len(self._off_until_s) >= CORRECTIONS_KEPT:
            return
        if _NAME.fullmatch(symbols[0]):
            self._off_until_s.pop((lane, request.method, symbols[0]), None)
            self._off_until_s[lane, request.method, symbols[0]] = now_s + CORRECTED_S
            self._off.setdefault(request.method, {}).setdefault(symbols[0], set()).add(lane)

    def _lift(self, correction: tuple[str, str, str]) -> None:
        del self._off_until_s[correction]
        lane, method, symbol = correction
        self._off[method][symbol].discard(lane)
        if not self._off[method][symbol]:
            del self._off[method][symbol]

    def able(self, lanes: Sequence[str], method: str, of: Asked) -> Sequence[str] | Lack:
        """The lanes that can take a request, as far as is known; `lanes` itself if all can."""
        able = lanes
        symbols, timeframe = of
        if timeframe:
            able = self._having(able, self._contents.framed(timeframe))
            if not able:
                return Lack(ErrorCode.NOT_SUPPORTED, self._no_frame(lanes, timeframe))
        if symbols:
            listing = self._having(able, self._contents.listing(symbols))
            off = self._off.get(method)
            if off and not off.keys().isdisjoint(symbols):
                refusing = set[str]().union(*(off[symbol] for symbol in symbols if symbol in off))
                listing = [lane for lane in listing if lane not in refusing]
            if not listing:
                return Lack(ErrorCode.BAD_SYMBOL, self._no_symbol(able, symbols))
            able = listing
        return able

    def _having(self, lanes: Sequence[str], contents: int) -> Sequence[str]:
        """The lanes that have one of these contents, or may have."""
        sets = self._sets
        having = [lane for lane in lanes if sets.get(lane, DOUBT) & contents]
        return lanes if len(having) == len(lanes) else having

    def _contents_of(self, lanes: Sequence[str]) -> list[Content]:
        digests = {digest for lane in lanes for digest in self._digests.get(lane, ())}
        return [self._contents.by_digest[digest] for digest in sorted(digests) if digest in self._contents.by_digest]

    def _no_frame(self, lanes: Sequence[str], timeframe: str) -> str:
        frames = dict.fromkeys(frame for content in self._contents_of(lanes) for frame in content.timeframes)
        return f"none of {', '.join(lanes)} has the timeframe {timeframe!r}; they have {', '.join(frames)}"

    def _no_symbol(self, lanes: Sequence[str], symbols: Sequence[str]) -> str:
        theirs = self._contents.of({digest for lane in lanes for digest in self._digests.get(lane, ())}) & ~DOUBT
        strange = [symbol for symbol in symbols if not self._contents.listing([symbol]) & theirs]
        if not strange:  # each is listed by some lane, but none lists all, or those that do have refused it
            return f"none of {', '.join(lanes)} has {', '.join(map(repr, symbols[:5]))} for this method"
        contents = self._contents_of(lanes)
        near = dict.fromkeys(like for symbol in strange[:3] for like in _alike(symbol, contents))
        hint = f"; they list {', '.join(near)}" if near else ""
        return f"none of {', '.join(lanes)} lists {', '.join(map(repr, strange[:5]))}{hint}"


async def follow(lanes: LaneKnowledge, client: redis.asyncio.Redis) -> None:
    """Fetches the contents that workers report, until cancelled. Without Redis only methods are known."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        for digest in lanes.missing():
            try:
                body: Any = await client.get(listings.key(digest))
                if body is None:  # Redis was emptied; workers write it again
                    raise LookupError(digest)  # noqa: TRY301
                lanes.learn(digest, await asyncio.to_thread(_read, body))
            except (*AWAY, LookupError, DecodeError, zlib.error) as error:
                if isinstance(error, AWAY):
                    store.count_loss(error, "knowledge")
                log.warning("knowledge_not_read", extra={"digest": digest, "error": repr(error)})
                await asyncio.sleep(AGAIN_S)


def _read(body: bytes) -> Content:
    return Content(listings.unpack(body))


def asked(args: Mapping[str, Any]) -> Asked:
    """What a request's arguments ask of a lane."""
    one, many, timeframe = args.get("symbol"), args.get("symbols"), args.get("timeframe")
    names: tuple[Any, ...] = tuple(many) if isinstance(many, list) else () if one is None else (one,)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if names and set(map(type, names)) != {str}:
        names = ()
    return Asked(names, timeframe if isinstance(timeframe, str) and len(timeframe) < LONGEST_TIMEFRAME else "")


def _is_option(symbol: str) -> bool:
    """Whether ccxt might take it for an expired option, which is listed no more."""
    return "-C" in symbol or "-P" in symbol or symbol.startswith(("C-", "P-"))


def _alike(symbol: str, contents: Sequence[Content]) -> list[str]:
    """Symbols that may be meant: those of the same letters, else of the same base, else of a base much like it."""
    plain = slips.symbol(symbol)
    letters = slips.letters(plain)
    same = dict.fromkeys(like for content in contents for like in content.by_letters.get(letters, ()))
    if same:
        return sorted(same, key=len)[:3]
    base = slips.letters(_base(plain))
    bases = [base]
    if not any(base in content.by_base for content in contents):
        pool = dict.fromkeys(other for content in contents for other in content.bases.get(base[:2], ()))
        bases = difflib.get_close_matches(base, list(pool)[:POOL], n=3)
    symbols = dict.fromkeys(like for content in contents for near in bases for like in content.by_base.get(near, ()))
    return difflib.get_close_matches(plain, list(symbols)[:POOL], n=3, cutoff=0.5)


def _base(symbol: str) -> str:
    """The part before the first separator, in capitals: the same for BTC/USDT, btc-usdt and BTC_USDT."""
    return _SEPARATOR.split(symbol.upper(), maxsplit=1)[0]
