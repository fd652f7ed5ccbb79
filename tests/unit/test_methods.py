"""Reads are taken, everything else is refused, also what a later ccxt brings."""

import importlib
from typing import Any

import pytest

from schemas.methods import FORBIDDEN_READS, PRIVATE_READS, PUBLIC_READS, refusal

ccxt: Any = importlib.import_module("ccxt.async_support")


@pytest.mark.parametrize("method", sorted(PUBLIC_READS))
def test_every_public_read_is_taken_and_is_ccxt_s(method: str) -> None:
    assert refusal(method) is None
    classes = [getattr(ccxt, exchange) for exchange in ccxt.exchanges]
    assert any(callable(getattr(kind, method, None)) for kind in classes)


@pytest.mark.parametrize("method", sorted(PRIVATE_READS))
def test_an_account_s_read_is_taken_where_an_account_is_named(method: str) -> None:
    assert method not in PUBLIC_READS
    assert refusal(method, account=True) is None
    assert "name one in 'account'" in str(refusal(method))
    classes = [getattr(ccxt, exchange) for exchange in ccxt.exchanges]
    assert any(callable(getattr(kind, method, None)) for kind in classes)


@pytest.mark.parametrize("account", [False, True])
@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("create_order", "not a read"),
        ("cancel_all_orders", "not a read"),
        ("withdraw", "not a read"),
        ("set_leverage", "not a read"),
        ("fetch_ticker_ws", "not a read"),
        ("watch_ticker", "not a read"),
        ("fetch2", "not a read"),
        ("fetch", "not a read"),
        ("load_time_difference", "not a read"),
        ("", "not a read"),
        ("fetchTicker", "snake_case"),
        ("FETCH_TICKER", "snake_case"),
        ("fetch_deposit_address", "account"),
        ("fetch_web_endpoint", "account"),
        ("fetch_", "account"),
        ("fetch_ticker ", "account"),
        *((method, "quote") for method in FORBIDDEN_READS),
    ],
)
def test_all_else_is_refused_with_what_to_change(method: str, says: str, account: bool) -> None:
    message = refusal(method, account=account)
    assert message is not None
    assert says in message
    assert repr(method) in message


def test_no_method_of_ccxt_that_changes_anything_is_taken() -> None:
    verbs = ("create", "edit", "cancel", "withdraw", "transfer", "set", "add", "reduce", "close", "borrow", "repay")
    for method in dir(ccxt.Exchange):
        if method.startswith(verbs):
            assert refusal(method, account=True) is not None
