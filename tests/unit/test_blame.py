"""Whether a failure counts against the lane or against the request."""

from collections.abc import Sequence
from random import Random

import pytest

from schemas.messages import Request
from workers.exchange.blame import KEPT, MEANWHILE_NEW_S, OFTEN, Blame

AGAINST, NOTHING = True, False


def ticker(symbol: str, **args: object) -> Request:
    return Request("fetch_ticker", {"symbol": symbol, **args})


GOOD, BAD = ticker("BTC/USDT"), ticker("ALGO/USDT")


def against(blame: Blame, requests: Sequence[Request], *, from_s: float = 0.0, gap_s: float = 0.01) -> list[bool]:
    return [blame.failed(request, from_s + number * gap_s) for number, request in enumerate(requests)]


def test_equal_requests_have_one_digest_and_others_their_own() -> None:
    one = Request("fetch_ohlcv", {"symbol": "BTC/USDT", "limit": 5, "params": {"a": 1, "b": 2}})
    same = Request("fetch_ohlcv", {"params": {"a": 1, "b": 2}, "limit": 5, "symbol": "BTC/USDT"}, id="x")
    assert one.digest == same.digest
    others = [
        Request("fetch_ohlcv", {"symbol": "BTC/USDT", "limit": 6}),
        Request("fetch_trades", one.args),
        Request("fetch_ohlcv", one.args, account="anna"),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 4
    assert one.subject == others[0].subject
    assert one.subject != others[1].subject
    # Anything that a message can hold.
    assert Request("fetch_ticker", {"symbol": {1: b"x", "y": [None, 2**63]}}).digest


@pytest.mark.parametrize("worked", [True, False])
def test_a_connection_that_fails_speaks_against_the_lane_also_with_one_request_alone(worked: bool) -> None:
    blame = Blame()
    if worked:
        blame.answered(GOOD, 0.0)
    assert set(against(blame, [GOOD] * 50)) == {AGAINST}


def test_a_symbol_s_own_failures_count_no_more_while_others_are_answered() -> None:
    blame = Blame()
    blame.answered(BAD, 0.0)
    seen: list[bool] = []
    for number in range(1, 20):
        blame.answered(GOOD, number / 10)
        seen += against(blame, [BAD] * 5, from_s=number / 10)
    assert seen == [AGAINST] * OFTEN + [NOTHING] * (len(seen) - OFTEN)
    # Others were answered since it began to fail: that it is alone now changes nothing.
    assert against(blame, [BAD], from_s=60.0) == [NOTHING]


def test_a_symbol_that_never_worked_says_nothing_while_others_are_answered() -> None:
    blame = Blame()
    blame.answered(GOOD, 0.0)
    invented = [ticker(f"NO{number}/USDT") for number in range(20)]
    assert set(against(blame, invented, gap_s=0.001)) == {NOTHING}
    assert set(against(blame, invented, from_s=MEANWHILE_NEW_S)) == {AGAINST}


def test_new_requests_for_symbols_that_work_show_an_outage_at_once() -> None:
    blame = Blame()
    blame.answered(ticker("BTC/USDT", since=0), 0.0)
    assert against(blame, [ticker("BTC/USDT", since=1)]) == [AGAINST]


def test_one_answer_of_a_symbol_makes_its_failures_count_again() -> None:
    blame = Blame()
    for request in (GOOD, BAD):
        blame.answered(request, 0.0)
    against(blame, [BAD] * 5)
    assert against(blame, [BAD], from_s=0.1) == [NOTHING]
    blame.answered(BAD, 0.2)
    blame.answered(GOOD, 0.2)
    assert against(blame, [BAD], from_s=0.3) == [AGAINST]


@pytest.mark.parametrize("symbols", [1, 3, 20])
def test_a_lane_that_fails_a_third_of_its_calls_shows_it(symbols: int) -> None:
    """At 10 calls a second, whatever is asked: more than 20 % of what is heard of speaks against the lane."""
    blame, draw, counted, good = Blame(), Random(symbols), 0, 0
    for number in range(2_000):
        request = ticker(f"C{draw.randrange(symbols)}/USDT")
        if draw.random() < 1 / 3:
            counted += blame.failed(request, number / 10)
        else:
            blame.answered(request, number / 10)
            good += 1
    assert counted / (counted + good) > 0.2


def test_a_symbol_s_own_failures_do_not_hide_an_outage() -> None:
    blame = Blame()
    for request in (GOOD, BAD):
        blame.answered(request, 0.0)
    for number in range(1, 9):
        blame.failed(BAD, number)
        blame.answered(GOOD, number + 0.5)
    assert against(blame, [BAD], from_s=20.0) == [False]
    # Now the others fail too, and so it counts as well.
    assert against(blame, [GOOD, BAD, GOOD, BAD, GOOD, BAD], from_s=21.0) == [True] * 6


def test_what_it_keeps_is_bounded() -> None:
    blame = Blame()
    for number in range(3 * KEPT):
        blame.answered(ticker(f"A{number}/USDT"), 0.0)
        blame.failed(ticker(f"B{number}/USDT"), 0.0)
    assert len(blame._worked) == len(blame._failed) == KEPT  # pyright: ignore[reportPrivateUsage]
