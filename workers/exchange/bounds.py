"""How many bytes of answers a worker holds: a limit for each answer by its method, and one for all together.

Parsed, an answer takes 5 to 20 times its own size. So the bytes of all bodies that are being read, parsed or turned
into results are counted, and at the limit reading stops. What a call has read counts until the call ends. A call whose
answer is likely to be large books room for it before it is charged. Otherwise answers would be paid for, thrown away
because there is no room, and paid for again.

What real exchanges send, decompressed: markets are the largest by far (Binance's exchangeInfo 15 to 20 MB, OKX's
instruments a few MB), then all tickers (Binance 1.6 MB) and whole order books (a few MB); one ticker or one page of
candles or trades has less than 1 MB. Some of ccxt's classes read all tickers to give one.
"""

import asyncio
from collections import Counter
from typing import Any, Final

from schemas.config import WorkerConfig
from schemas.methods import HTTP, PRIVATE_READS, PUBLIC_READS

from . import rows
from .rows import TooLarge

MIB: Final = 1024 * 1024
# How much is read of an answer that is no success: it says why at its start.
ERROR_BYTES: Final = 64 * 1024
# The start of an answer is always read: most answers are shorter than this, and must not wait for large ones.
START_BYTES: Final = 64 * 1024
# How long a reader waits for room, and how long its request is put off if there is none.
PATIENCE_S: Final = 5.0
REST_S: Final = 1.0
# Before an exchange's first answer to a method with large answers: the most calls in flight, and how large one counts.
FIRST_AT_ONCE: Final = 4
FIRST_BYTES: Final = MIB
# The estimate of what a call needs falls by this factor with each smaller answer.
FORGETS: Final = 0.8

_LISTINGS: Final = frozenset({"load_markets", "fetch_markets", "fetch_currencies", "fetch_convert_currencies"})
# Methods with small answers: a few numbers, or data on one symbol; at most all tickers.
_ONE: Final = frozenset(
    """
    fetch_adl_rank fetch_borrow_rate fetch_cross_borrow_rate fetch_deposit_withdraw_fee fetch_funding_interval
    fetch_funding_rate fetch_greeks fetch_isolated_borrow_rate fetch_long_short_ratio fetch_mark_price
    fetch_open_interest fetch_option fetch_status fetch_ticker fetch_time
    fetch_closed_order fetch_deposit fetch_leverage fetch_ledger_entry fetch_margin_mode fetch_open_order fetch_order
    fetch_order_status fetch_position fetch_position_adl_rank fetch_position_mode fetch_trading_fee
    fetch_transaction_fee fetch_transfer fetch_withdrawal
    """.split()
)
assert _LISTINGS | _ONE <= PUBLIC_READS | PRIVATE_READS
_ONE_BYTES: Final = 4 * MIB


def too_long(most_bytes: int) -> TooLarge:
    """The error for an answer with more bytes than one may have."""
    return TooLarge(f"more than {most_bytes / MIB:g} MiB")


class Crowded(Exception):
    """The worker holds as much of answers as it may, and no room came in time: no fault of the exchange."""

    def __init__(self) -> None:
        super().__init__("the worker holds as much of exchanges' answers as it may (max_answers_mib); no room in time")


class Bounds:
    """The answers that one worker holds, and their limits.

    Args:
        config: the limits; `configure` changes them.

    Attributes:
        held: bytes of all bodies that are being read, parsed or turned into results.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self.held = 0
        self._sum = 0  # bytes that are held or booked, all calls together
        self._of: Counter[str] = Counter()  # the same by exchange
        self._large: dict[Holding, None] = {}  # calls past `START_BYTES`, in the order in which they got there
        self._freed = asyncio.Event()
        self._likely: dict[tuple[str, str], int] = {}  # the estimate for an exchange's method, in bytes
        self._booked: dict[Holding, None] = {}
        self._queue: dict[Holding, asyncio.Future[None]] = {}  # calls that wait for room

    def configure(self, config: WorkerConfig) -> None:
        """Sets other limits; what is held stays."""
        self._config = config

    @property
    def _most(self) -> int:
        return int(self._config.max_answers_mib * MIB)

    def most_bytes(self, method: str) -> int:
        """The most that one answer to a method may have, decompressed."""
        if method in _LISTINGS or method == HTTP:  # a call may be for markets, too
            return int(self._config.max_markets_mib * MIB)
        most = int(self._config.max_answer_mib * MIB)
        return min(most, _ONE_BYTES) if method in _ONE else most

    def holding(self, exchange: str, method: str) -> "Holding":
        """A new call's holding, which is empty."""
        return Holding(self, self.most_bytes(method), rows.most(method), (exchange, method))

    async def book(self, holding: "Holding") -> None:
        """Books room for the answers of a call that is not charged yet; waits as long as there is none.

        It books what such a call held before; small answers need no room. An exchange gets at most half of all room
        while others want some. A call that has room, or holds an answer, does not wait: two such calls would block each
        other.
        """
        if holding in self._booked or holding.held or not self._needs(holding):
            return
        turn = self._queue.get(holding)
        if turn is None:
            turn = self._queue[holding] = asyncio.get_running_loop().create_future()
            self._next()
        holding.waiting += 1
        try:
            await asyncio.shield(turn)  # its other pages may wait on
        finally:
            holding.waiting -= 1
            if holding in self._queue and not holding.waiting:  # it gave up
                del self._queue[holding]
                self._next()

    def _needs(self, holding: "Holding") -> int:
        likely = self._likely.get(holding.key)
        if likely is None:
            likely = START_BYTES if holding.key[1] in _ONE else FIRST_BYTES
        return min(likely, self._most) if likely > START_BYTES else 0

    def _fits(self, holding: "Holding") -> bool:
        exchange, needs = holding.key[0], self._needs(holding)
        if holding.key not in self._likely and sum(each.key == holding.key for each in self._booked) >= FIRST_AT_ONCE:
            return False
        if not self._booked and not self._large:
            return True
        alone = all(each.key[0] != exchange for each in (*self._booked, *self._large))
        return self._sum + needs <= self._most and (alone or self._of[exchange] + needs <= self._most // 2)

    def _next(self) -> None:
        """Lets calls go for whose answers there is room, of each exchange and method in their order."""
        behind: set[tuple[str, str]] = set()
        for holding, turn in list(self._queue.items()):
            if holding.key not in behind and (not self._needs(holding) or self._fits(holding)):
                del self._queue[holding]
                self._booked[holding] = None
                self._count(holding, booked=self._needs(holding))
                turn.set_result(None)
            else:
                behind.add(holding.key)

    def _count(self, holding: "Holding", *, held: int | None = None, booked: int | None = None) -> None:
        before = max(holding.held, holding.booked)
        if held is not None:
            self.held += held - holding.held
            holding.held = held
        if booked is not None:
            holding.booked = booked
        more = max(holding.held, holding.booked) - before
        self._sum += more
        self._of[holding.key[0]] += more

    async def take(self, holding: "Holding", count: int) -> bool:
        """Counts what a call reads next; beyond what it booked it waits while too much is held.

        The call that has been large for longest never waits.

        Returns:
            Whether it waited.

        Raises:
            Crowded: too much is still held after `PATIENCE_S`.
            TooLarge: the call alone would hold too much, as one that reads many answers may.
        """
        waited = False
        if holding.held + count > START_BYTES:
            self._large.setdefault(holding)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while not self._has_room(holding, holding.held + count):
                        # If this answer is thrown away, the next call of its kind books the most it may need.
                        self._likely[holding.key], waited = holding.most_bytes, True
                        await self._freed.wait()
            except TimeoutError:
                raise Crowded from None
        self._count(holding, held=holding.held + count)  # its other pages may have read meanwhile
        return waited

    def _has_room(self, holding: "Holding", held: int) -> bool:
        if held > max(self._most, holding.most_bytes):
            raise too_long(self._most)
        if held <= holding.booked or next(iter(self._large)) is holding:
            return True
        return self._sum - max(holding.held, holding.booked) + held <= self._most

    def give_back(self, holding: "Holding") -> None:
        """The call holds nothing any more; what it held becomes the estimate for the next one of its kind."""
        if holding.held:
            self._likely[holding.key] = max(holding.held, int(self._likely.get(holding.key, 0) * FORGETS))
        self._count(holding, held=0, booked=0)
        self._large.pop(holding, None)
        self._booked.pop(holding, None)
        self._freed.set()
        self._freed = asyncio.Event()
        self._next()


class Holding:
    """What one call holds of its exchange's answers.

    Args:
        bounds: the worker's; None for a call that reads nothing.
        most_bytes: the most that one answer may have, decompressed.
        most: how many rows one answer may have.
        key: the exchange and the method.

    Attributes:
        held: bytes of its answers.
        booked: bytes of room that it booked for them.
        waiting: how many of its HTTP calls wait for that.
        parsed: long texts, each with its parsed value.
        keeps: whether the last body is wanted as it came.
        kept: that body, decompressed; None before there is one.
    """

    def __init__(self, bounds: Bounds | None, most_bytes: int, most: rows.Rows, key: tuple[str, str]) -> None:
        self._bounds = bounds
        self.most_bytes = most_bytes
        self.rows = most
        self.key = key
        self.held = 0
        self.booked = 0
        self.waiting = 0
        self.parsed: list[tuple[str, Any]] = []
        self.keeps = False
        self.kept: bytes | None = None

    async def book(self) -> None:
        """The call will be charged and sent next; see `Bounds.book`."""
        if self._bounds is not None:
            await self._bounds.book(self)

    async def take(self, count: int) -> bool:
        """The call reads so many more bytes; see `Bounds.take`."""
        return self._bounds is not None and await self._bounds.take(self, count)

    def close(self) -> None:
        """The call is over."""
        self.parsed.clear()
        if self._bounds is not None:
            self._bounds.give_back(self)


NOTHING: Final = Holding(None, START_BYTES, rows.MOST, ("", ""))
