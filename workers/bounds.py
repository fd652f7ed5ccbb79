"""How much of exchanges' answers a worker takes in: of each, by what was asked, and of all of them together.

Parsed, an answer takes 5 to 20 times its own size. So the bytes of all bodies that are being read, parsed or turned
into results are counted, and where they are at their bound no more is read. What a call has read counts until it ends.

What real exchanges send, decompressed: markets are the largest by far (Binance's exchangeInfo 15 to 20 MB, OKX's
instruments a few MB), then all tickers (Binance 1.6 MB) and whole order books (a few MB); one ticker or one page of
candles or trades has less than 1 MB. Some of ccxt's classes read all tickers to give one.
"""

import asyncio
from typing import Any, Final

from schemas.config import WorkerConfig
from schemas.methods import PRIVATE_READS, PUBLIC_READS

from .rows import MOST, Rows, TooLarge, most

MIB: Final = 1024 * 1024
# An answer that is no success says why in its first words.
ERROR_BYTES: Final = 64 * 1024
# The start of every answer is read whatever else is held: most answers are shorter, and must not wait for large ones.
START_BYTES: Final = 64 * 1024
# How long an answer waits for others to end, and how long its request rests where they did not.
PATIENCE_S: Final = 5.0
REST_S: Final = 1.0

_LISTINGS: Final = frozenset({"load_markets", "fetch_markets", "fetch_currencies", "fetch_convert_currencies"})
# Answered with a few numbers, or the little that there is of one symbol; at most with all tickers.
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
    """What is raised where an answer has more bytes than are taken of one; its connection is gone."""
    return TooLarge(f"more than {most_bytes / MIB:g} MiB")


class Crowded(Exception):
    """The worker holds as much of answers as it may, and that did not change in time: no fault of the exchange."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"the worker holds {most_bytes / MIB:g} MiB of answers, and takes no more for now")


class Bounds:
    """What one worker takes in and holds.

    Args:
        config: the limits; `configure` changes them.

    Attributes:
        held: bytes of all bodies that are being read, parsed or turned into results.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self.held = 0
        self._large: dict[Holding, None] = {}  # in the order in which they became that
        self._freed = asyncio.Event()

    def configure(self, config: WorkerConfig) -> None:
        """Takes other limits; what is held stays."""
        self._config = config

    def most_bytes(self, method: str) -> int:
        """The most that one answer to a method may have, decompressed."""
        if method in _LISTINGS:
            return int(self._config.max_markets_mib * MIB)
        most = int(self._config.max_answer_mib * MIB)
        return min(most, _ONE_BYTES) if method in _ONE else most

    def holding(self, method: str) -> "Holding":
        """What a new call holds: nothing yet."""
        return Holding(self, self.most_bytes(method), most(method))

    async def take(self, holding: "Holding", count: int) -> bool:
        """Counts what a call reads next; waits while too much is held. The call that is large for longest never waits.

        Returns:
            Whether it waited.

        Raises:
            Crowded: too much is still held after `PATIENCE_S`.
            TooLarge: the call alone holds too much: it reads many answers.
        """
        most, waited = int(self._config.max_answers_mib * MIB), False
        if holding.held + count > START_BYTES:
            if holding.held + count > max(most, holding.most_bytes):
                raise too_long(most)
            self._large.setdefault(holding)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while self.held + count > most and next(iter(self._large)) is not holding:
                        waited = True
                        await self._freed.wait()
            except TimeoutError:
                raise Crowded(most) from None
        holding.held += count
        self.held += count
        return waited

    def give_back(self, holding: "Holding") -> None:
        """The call holds nothing any more."""
        self.held -= holding.held
        holding.held = 0
        self._large.pop(holding, None)
        self._freed.set()
        self._freed = asyncio.Event()


class Holding:
    """What one call holds of its exchange's answers.

    Args:
        bounds: the worker's; None for a call that reads nothing.
        most_bytes: the most that one answer may have, decompressed.
        rows: how many rows it may have.

    Attributes:
        parsed: a long text, and what it says.
    """

    def __init__(self, bounds: Bounds | None, most_bytes: int, rows: Rows) -> None:
        self._bounds = bounds
        self.most_bytes = most_bytes
        self.rows = rows
        self.held = 0
        self.parsed: list[tuple[str, Any]] = []

    async def take(self, count: int) -> bool:
        """It reads so many bytes more; see `Bounds.take`."""
        return self._bounds is not None and await self._bounds.take(self, count)

    def close(self) -> None:
        """The call is over."""
        self.parsed.clear()
        if self._bounds is not None:
            self._bounds.give_back(self)


NOTHING: Final = Holding(None, START_BYTES, MOST)
