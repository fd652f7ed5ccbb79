"""Which ccxt methods a request may name: reads only.

The split of the unified methods into public and account reads was measured by running each on nine exchanges with keys
set and recording which calls are signed (ccxt 4.5.90). A method that ccxt adds later is refused until it is listed
here, so that nothing private is ever run by accident.
"""

from typing import Final

# Stands for the method of a request for an HTTP call (`messages.Http`), from the dispatcher on.
HTTP: Final = "http"
# It creates a quote at the exchange, and so is a write.
FORBIDDEN_READS: Final = frozenset({"fetch_convert_quote"})

PUBLIC_READS: Final = frozenset(
    """
    fetch_adl_rank fetch_bids_asks fetch_borrow_rate fetch_borrow_rate_histories fetch_borrow_rate_history
    fetch_cross_borrow_rate fetch_currencies
    fetch_deposit_withdraw_fee fetch_deposit_withdraw_fees fetch_funding_interval fetch_funding_intervals
    fetch_funding_rate fetch_funding_rate_history fetch_funding_rates fetch_greeks fetch_index_ohlcv
    fetch_isolated_borrow_rate fetch_isolated_borrow_rates fetch_l2_order_book fetch_l3_order_book fetch_last_prices
    fetch_leverage_tiers fetch_liquidations fetch_long_short_ratio fetch_long_short_ratio_history fetch_mark_ohlcv
    fetch_mark_price fetch_mark_prices fetch_market_leverage_tiers fetch_markets fetch_ohlcv fetch_open_interest
    fetch_open_interest_history fetch_open_interests fetch_option fetch_option_chain fetch_order_book
    fetch_order_books fetch_premium_index_ohlcv fetch_settlement_history fetch_status fetch_ticker fetch_tickers
    fetch_time fetch_trades fetch_trading_fees fetch_trading_limits fetch_underlying_assets fetch_volatility_history
    load_markets
    """.split()
)


# Reads of an account. Deposit addresses are left out: some exchanges create one when it is read.
PRIVATE_READS: Final = frozenset(
    """
    fetch_accounts fetch_balance fetch_borrow_interest fetch_canceled_and_closed_orders fetch_canceled_orders
    fetch_closed_order fetch_closed_orders fetch_convert_currencies fetch_convert_trade fetch_convert_trade_history
    fetch_cross_borrow_rates fetch_deposit fetch_deposits fetch_deposits_withdrawals fetch_free_balance
    fetch_funding_history fetch_ledger fetch_ledger_entry fetch_leverage fetch_leverages
    fetch_margin_adjustment_history fetch_margin_mode fetch_margin_modes fetch_my_liquidations
    fetch_my_settlement_history fetch_my_trades fetch_open_order fetch_open_orders fetch_order fetch_order_status
    fetch_order_trades fetch_orders fetch_position fetch_position_adl_rank fetch_position_history fetch_position_mode
    fetch_positions fetch_positions_adl_rank fetch_positions_for_symbol fetch_positions_history fetch_positions_risk
    fetch_total_balance fetch_trading_fee fetch_transaction_fee fetch_transaction_fees fetch_transactions
    fetch_transfer fetch_transfers fetch_used_balance fetch_withdrawal fetch_withdrawals
    """.split()
)


def is_read(method: str) -> bool:
    """Whether `method` only reads, over REST: ``load_markets``, and ``fetch_*`` but the forbidden ones."""
    return (
        (method.startswith("fetch_") or method == "load_markets")
        and method not in FORBIDDEN_READS
        and not method.endswith("_ws")
    )


def refusal(method: str, *, account: bool = False) -> str | None:
    """Why the fleet does not run `method`, or None if it does. The text says what the producer should change.

    Args:
        method: as the request names it.
        account: whether the request names an account.
    """
    if method == HTTP:
        return "'http' is no method: say which call in the request's field 'http'"
    if method != method.lower():
        return f"{method!r} is not a ccxt method in snake_case: write e.g. 'fetch_ticker', 'fetch_ohlcv'"
    if method in FORBIDDEN_READS:
        return f"{method!r} creates a quote at the exchange; the fleet runs reads only"
    if not is_read(method):
        return f"{method!r} is not a read; the fleet runs fetch_* methods and load_markets only"
    if method in PUBLIC_READS:
        return None
    if method not in PRIVATE_READS:
        return f"{method!r} is no public read, nor a read of an account that the fleet runs"
    return None if account else f"{method!r} reads an account: name one in 'account'"
