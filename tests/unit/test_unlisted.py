"""Which names in answers make an exchange's markets be read again."""

import asyncio
import math

import pytest

from workers.exchange.unlisted import KEPT, LONGEST, Unlisted


async def test_a_name_is_new_until_markets_that_were_read_after_it() -> None:
    unlisted = Unlisted("okx")
    unlisted.note("NEW-USDT")
    await unlisted.wait()
    unlisted.settle(-math.inf)  # the markets are older
    assert len(unlisted) == 1
    unlisted.settle(math.inf)
    assert len(unlisted) == 0
    # It is still not listed, so it is no market.
    unlisted.note("NEW-USDT")
    assert len(unlisted) == 0


async def test_many_names_are_one_reason_to_look() -> None:
    unlisted = Unlisted("okx")
    unlisted.note("A-USDT")
    await unlisted.wait()
    unlisted.note("B-USDT")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(unlisted.wait(), 0.01)
    assert len(unlisted) == 2


@pytest.mark.parametrize("name", ["BTC-240101-40000-C", "BTC-240101-40000-P"])
def test_an_option_that_has_ended_is_not_new(name: str) -> None:
    unlisted = Unlisted("okx")
    unlisted.note(name)
    assert len(unlisted) == 0


def test_what_it_keeps_is_bounded() -> None:
    unlisted = Unlisted("okx")
    for row in range(3):
        for number in range(2 * KEPT):
            unlisted.note(f"{row} {number} " + "x" * LONGEST)
        assert len(unlisted) == KEPT
        unlisted.settle(math.inf)
    # Of the strange ones the latest are kept.
    unlisted.note("2 1 " + "x" * LONGEST)
    unlisted.note("0 1 " + "x" * LONGEST)
    assert len(unlisted) == 1
