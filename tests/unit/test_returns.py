"""The way from ccxt's real error classes to what the router does, and what attempts mean together."""

from typing import Any, get_args

import pytest
from ccxt.base import errors  # pyright: ignore[reportMissingTypeStubs]

from dispatcher import returns
from dispatcher.returns import MOVES, Move
from schemas.messages import Attempt, ErrorCode, Outcome, Request, Try
from workers.budget.grants import Reason
from workers.exchange.call import Heard, Seen
from workers.exchange.errors import NoBudget, judge

CCXT: dict[str, Any] = dict(vars(errors))
NOW_MS = 1_000_000_000_000

# The whole of ccxt's tree (4.5.90): what a public read that met the class does next.
BY_MOVE: dict[Move, set[str]] = {
    Move.END: {
        *("ArgumentsRequired", "BadRequest", "OperationRejected", "NoChange", "MarginModeAlreadySet"),
        *("InsufficientFunds", "InvalidAddress", "AddressPending", "CancelPending", "InvalidOrder", "OrderNotFound"),
        *("OrderNotCached", "OrderImmediatelyFillable", "OrderNotFillable", "DuplicateOrderId"),
    },
    Move.ELSEWHERE: {
        *("BadSymbol", "MarketClosed", "ContractUnavailable", "NotSupported"),
        *("AuthenticationError", "PermissionDenied", "AccountNotEnabled", "AccountSuspended"),
        *("ManualInteractionNeeded", "InvalidNonce", "RestrictedLocation"),
    },
    Move.ANOTHER: {
        *("OperationFailed", "NetworkError", "ExchangeNotAvailable", "OnMaintenance", "RequestTimeout"),
        *("DDoSProtection", "RateLimitExceeded"),
        *("BadResponse", "NullResponse", "ChecksumError"),
    },
    Move.DOUBTED: {
        *("BaseError", "ExchangeError", "UnsubscribeError"),
        *("InvalidProxySettings", "ExchangeClosedByUser"),
    },
}


def returned(error: Exception, seen: Seen) -> Try:
    verdict = judge(error, seen)
    return Try("okx", verdict.outcome, verdict.code, verdict.message)


def test_every_code_has_a_move() -> None:
    assert set(MOVES) == set(ErrorCode)


def test_every_class_of_ccxt_has_a_move() -> None:
    moves = {
        name: returns.move(returned(kind("x"), Seen("okx", 1, Heard(200, "{}"))))
        for name, kind in CCXT.items()
        if isinstance(kind, type)
    }
    assert moves == {name: move for move, names in BY_MOVE.items() for name in names}


@pytest.mark.parametrize(
    ("name", "status", "body", "move"),
    [
        # One class, and the status tells what it is: no connection, a dead exchange, a wrong parameter, a firewall.
        ("ExchangeNotAvailable", None, "", Move.ANOTHER),
        ("ExchangeNotAvailable", 502, "<html>", Move.ANOTHER),
        ("ExchangeNotAvailable", 400, '{"msg":"limit"}', Move.ELSEWHERE),
        ("ExchangeNotAvailable", 400, "<html>", Move.END),
        ("ExchangeNotAvailable", 403, "<html>", Move.ANOTHER),
        ("ExchangeNotAvailable", 451, "{}", Move.ELSEWHERE),
        ("ExchangeError", 404, '{"error":"NOT_FOUND"}', Move.ELSEWHERE),
        ("ExchangeError", 200, '{"error":["EQuery:Unknown asset pair"]}', Move.ELSEWHERE),
        ("ExchangeError", 504, "", Move.ANOTHER),
        ("AuthenticationError", 401, "{}", Move.ELSEWHERE),
    ],
)
def test_the_status_decides_where_the_class_is_vague(name: str, status: int | None, body: str, move: Move) -> None:
    assert returns.move(returned(CCXT[name]("x"), Seen("kraken", 1, Heard(status, body, by_status=True)))) is move


@pytest.mark.parametrize("reason", get_args(Reason))
def test_what_was_not_sent_waits(reason: Reason) -> None:
    assert returns.move(returned(NoBudget(reason, 3.5), Seen("okx"))) is Move.WAIT


def test_attempts_together() -> None:
    tries = [
        Try("a", Outcome.FAILED, ErrorCode.EXCHANGE_TIMEOUT),
        Try("b", Outcome.FAILED, ErrorCode.BAD_SYMBOL),
        Try("c", Outcome.FAILED, ErrorCode.EXCHANGE_ERROR),
        Try("d", Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=NOW_MS),
        # It failed before, and now had no budget: it still comes after those that did not fail.
        Try("a", Outcome.THROTTLED, ErrorCode.PAUSED, retry_at_ms=NOW_MS + 5),
    ]
    past = returns.past(tries)
    assert past.final is None
    assert past.never == {"b"}
    assert past.failed == {"a": 1, "c": 1}
    assert past.retry_at_ms == {"a": NOW_MS + 5, "b": 0, "c": 0, "d": NOW_MS}
    assert past.doubts == 1
    assert returns.past([]) is returns.NOTHING


def test_what_no_lane_can_change_ends_it() -> None:
    rejected = Try("a", Outcome.REJECTED, ErrorCode.EXCHANGE_ERROR)
    assert returns.past([rejected]).final is rejected


def test_an_answer_that_is_too_large_for_one_lane_may_be_smaller_on_another() -> None:
    failed = Try("a", Outcome.FAILED, ErrorCode.TOO_LARGE)
    assert returns.past([failed]).never == {"a"}
    rejected = Try("a", Outcome.REJECTED, ErrorCode.TOO_LARGE)  # its result, ready to be sent
    assert returns.past([rejected]).final is rejected


def attempt(number: int) -> Attempt:
    return Attempt(Request("fetch_ticker", deadline_ms=NOW_MS), lane="", number=number, received_ms=0)


def test_rests_grow_and_leave_time_for_another_try() -> None:
    assert [returns.rest_ms(attempt(number), 600_000) for number in (0, 1, 2, 3, 9)] == [250, 250, 500, 1000, 64_000]
    assert returns.rest_ms(attempt(5000), 600_000) == 64_000
    assert returns.rest_ms(attempt(6), 5_000) == 2_500
    assert returns.rest_ms(attempt(6), 300) == 250


def test_only_what_may_be_the_requests_own_fault_is_counted() -> None:
    assert not returns.exhausted(attempt(50), doubts=0, max_attempts=5)
    assert returns.exhausted(attempt(5), doubts=5, max_attempts=5)
    assert not returns.exhausted(attempt(4), doubts=5, max_attempts=5)  # one of them was a trial
