"""A day of mixed load on the virtual fleet: how many are refused falsely, and how many come too late.

::

    python -m tests.support.virtual_day --hours 4 --dispatchers 1,2

Five exchanges, each with a kind of limit and a load of its own. Demand follows the hour, by the sine of the day, and
stands above the limit in the busiest hours where a row says so. The figures count requests of each exchange apart.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from .virtual_fleet import TICKER, Asked, Limit, VirtualFleet, false_refusals, late

CANDLES: Final = "fetch_ohlcv"
# As in the test of lines: a call may leave so long before its turn.
TOLERANCE_S: Final = 1.5
HOUR_S: Final = 3_600


class Part(Struct, frozen=True):
    """The load of one exchange.

    Args:
        amount: what its limit allows.
        window_s: in which time.
        least: the demand in the quietest hour, as a part of the limit.
        most: in the busiest.
        crowd: how many come at once, as a part of what a window allows.
        every_s: how often they do.
        candles: which part of the requests asks for candles, which cost `CANDLES_COST`.
        deadlines_s: the shortest and the longest.
        callers: which part of the requests each caller sends. The first of several asks for more than his share, and
            which of his are refused is his own affair: they are not counted as false.
    """

    amount: int
    window_s: float
    least: float
    most: float
    crowd: float = 0.0
    every_s: float = HOUR_S
    candles: float = 0.0
    deadlines_s: tuple[float, float] = (2, 40)
    callers: tuple[float, ...] = (1.0,)


CANDLES_COST: Final = 3
CALLERS: Final = ("", "second", "third")
PARTS: Final = {
    "one a second": Part(1, 1, 0.3, 1.5),
    "10 s, steady": Part(20, 10, 0.5, 0.97),
    "10 s, twice too much": Part(20, 10, 0.3, 2.0),
    "30 s, crowds": Part(60, 30, 0.2, 0.6, crowd=1.5, every_s=300, deadlines_s=(2, 70)),
    "60 s, two methods": Part(120, 60, 0.3, 1.3, candles=0.3),
    "10 s, three callers": Part(20, 10, 0.3, 2.0, callers=(0.76, 0.16, 0.08)),
}


class Row(Struct, frozen=True):
    """What became of the requests of one exchange.

    Args:
        name: its load.
        asked: how many.
        answered: in time.
        refused: for the line before them.
        false: those of the refused that could have been answered, as one that came after was.
        of_one_instant: more of them, where only such came after as came at the same instant, behind it in order.
        late: neither answered in time nor refused.
    """

    name: str
    asked: int
    answered: int
    refused: int
    false: int
    of_one_instant: int
    late: int


def day(hours: float, dispatchers: int, seed: int = 1) -> list[Row]:
    """Lets the load run for so long, over as much of a day's shape; gives a row for each exchange."""
    costs = {CANDLES: CANDLES_COST}
    fleet = VirtualFleet(
        {name: Limit(part.amount, part.window_s, costs) for name, part in PARTS.items()}, dispatchers=dispatchers
    )
    asked: dict[str, Sequence[Asked]] = {}
    for name, part in PARTS.items():
        draw = random.Random(f"{seed} {name}")
        asked[name] = [
            fleet.ask(
                at_s,
                draw.uniform(*part.deadlines_s),
                name,
                method=CANDLES if draw.random() < part.candles else TICKER,
                caller=draw.choices(CALLERS, part.callers)[0] if len(part.callers) > 1 else "",
            )
            for at_s in sorted(instants(part, hours * HOUR_S, draw))
        ]
    fleet.run(hours * HOUR_S + 120)
    return [_row(name, each) for name, each in asked.items()]


def _row(name: str, asked: Sequence[Asked]) -> Row:
    compared = [one for one in asked if one.caller or len(PARTS[name].callers) == 1]
    false = len(false_refusals(compared, TOLERANCE_S, one_instant=False))
    return Row(
        name,
        len(asked),
        sum(one.ok for one in asked),
        sum(one.refused for one in asked),
        false,
        len(false_refusals(compared, TOLERANCE_S)) - false,
        len(late(asked)),
    )


def instants(part: Part, seconds: float, draw: random.Random) -> Iterator[float]:
    """When requests come: by chance, more or fewer with the hour, and in crowds."""
    mean_cost = 1 + part.candles * (CANDLES_COST - 1)
    per_s = part.amount / part.window_s / mean_cost
    at_s = 0.0
    while True:
        busy = 0.5 - 0.5 * math.cos(2 * math.pi * at_s / seconds)  # a shorter day has all hours too
        at_s += draw.expovariate(per_s * (part.least + (part.most - part.least) * busy))
        if at_s >= seconds:
            break
        yield at_s
    if part.crowd:
        for number in range(math.ceil(seconds / part.every_s)):
            yield from [number * part.every_s] * int(part.crowd * part.amount)


def main() -> None:
    """Prints a table for each number of dispatchers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--dispatchers", default="1,2")
    options = parser.parse_args()
    for dispatchers in map(int, options.dispatchers.split(",")):
        begun_s = time.process_time()
        rows = day(options.hours, dispatchers)
        print(f"{options.hours:g} h, dispatchers: {dispatchers}; {time.process_time() - begun_s:.0f} s of CPU")
        columns = Row.__struct_fields__
        print(f"| {' | '.join(each.replace('_', ' ') for each in columns)} |\n{'| --- ' * len(columns)}|")
        for row in rows:
            print(f"| {' | '.join(str(getattr(row, each)) for each in columns)} |", flush=True)


if __name__ == "__main__":
    main()
