"""Every read that the fleet runs, with ccxt's arguments in ccxt's order. Written by `tests/support/client_code.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack, overload

from .asking import EMPTY, AccountHow, All, How, Mode, PublicHow
from .types import (
    ADL,
    OHLCV,
    Account,
    BorrowInterest,
    Conversion,
    CrossBorrowRate,
    CurrencyInterface,
    DepositWithdrawFee,
    FundingHistory,
    FundingRate,
    FundingRateHistory,
    Greeks,
    IsolatedBorrowRate,
    LastPrice,
    LedgerEntry,
    Leverage,
    LeverageTier,
    Liquidation,
    LongShortRatio,
    MarginMode,
    MarginModification,
    MarketInterface,
    OpenInterest,
    Option,
    Order,
    OrderBook,
    OrderBookL3,
    Position,
    PositionModeInfo,
    Status,
    Ticker,
    Trade,
    TradingFeeInterface,
    Transaction,
    TransferEntry,
)


class Reads:
    """The reads; a subclass says how one is asked."""

    async def read(self, method: str, args: Mapping[str, Any], mode: Mode, how: How) -> Any:
        """Asks for a read by the names of it and its arguments; what the methods below return."""
        raise NotImplementedError

    @overload
    async def fetch_accounts(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> list[Account]: ...

    @overload
    async def fetch_accounts(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[list[Account]]: ...

    async def fetch_accounts(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_accounts`, of an account."""
        return await self.read("fetch_accounts", {"params": params}, mode, how)

    @overload
    async def fetch_adl_rank(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> ADL: ...

    @overload
    async def fetch_adl_rank(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[ADL]: ...

    async def fetch_adl_rank(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_adl_rank`."""
        return await self.read("fetch_adl_rank", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> dict[str, Any]: ...

    @overload
    async def fetch_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[dict[str, Any]]: ...

    async def fetch_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_balance`, of an account."""
        return await self.read("fetch_balance", {"params": params}, mode, how)

    @overload
    async def fetch_bids_asks(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, Ticker]: ...

    @overload
    async def fetch_bids_asks(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, Ticker]]: ...

    async def fetch_bids_asks(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_bids_asks`."""
        return await self.read("fetch_bids_asks", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_borrow_interest(
        self,
        code: str | None = None,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[BorrowInterest]: ...

    @overload
    async def fetch_borrow_interest(
        self,
        code: str | None = None,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[BorrowInterest]]: ...

    async def fetch_borrow_interest(
        self,
        code: str | None = None,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_borrow_interest`, of an account."""
        return await self.read(
            "fetch_borrow_interest",
            {"code": code, "symbol": symbol, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_borrow_rate(
        self,
        code: str,
        amount: float,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, Any]: ...

    @overload
    async def fetch_borrow_rate(
        self,
        code: str,
        amount: float,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, Any]]: ...

    async def fetch_borrow_rate(
        self,
        code: str,
        amount: float,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_borrow_rate`."""
        return await self.read("fetch_borrow_rate", {"code": code, "amount": amount, "params": params}, mode, how)

    @overload
    async def fetch_borrow_rate_histories(
        self,
        codes: Sequence[str] | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, Any]: ...

    @overload
    async def fetch_borrow_rate_histories(
        self,
        codes: Sequence[str] | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, Any]]: ...

    async def fetch_borrow_rate_histories(
        self,
        codes: Sequence[str] | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_borrow_rate_histories`."""
        return await self.read(
            "fetch_borrow_rate_histories", {"codes": codes, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_borrow_rate_history(
        self,
        code: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[dict[str, Any]]: ...

    @overload
    async def fetch_borrow_rate_history(
        self,
        code: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[dict[str, Any]]]: ...

    async def fetch_borrow_rate_history(
        self,
        code: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_borrow_rate_history`."""
        return await self.read(
            "fetch_borrow_rate_history", {"code": code, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_canceled_and_closed_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Order]: ...

    @overload
    async def fetch_canceled_and_closed_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Order]]: ...

    async def fetch_canceled_and_closed_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_canceled_and_closed_orders`, of an account."""
        return await self.read(
            "fetch_canceled_and_closed_orders",
            {"symbol": symbol, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_canceled_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Order]: ...

    @overload
    async def fetch_canceled_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Order]]: ...

    async def fetch_canceled_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_canceled_orders`, of an account."""
        return await self.read(
            "fetch_canceled_orders", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_closed_order(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> Order: ...

    @overload
    async def fetch_closed_order(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[Order]: ...

    async def fetch_closed_order(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_closed_order`, of an account."""
        return await self.read("fetch_closed_order", {"id": id, "symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_closed_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Order]: ...

    @overload
    async def fetch_closed_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Order]]: ...

    async def fetch_closed_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_closed_orders`, of an account."""
        return await self.read(
            "fetch_closed_orders", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_convert_currencies(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> dict[str, CurrencyInterface]: ...

    @overload
    async def fetch_convert_currencies(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[dict[str, CurrencyInterface]]: ...

    async def fetch_convert_currencies(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_convert_currencies`, of an account."""
        return await self.read("fetch_convert_currencies", {"params": params}, mode, how)

    @overload
    async def fetch_convert_trade(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> Conversion: ...

    @overload
    async def fetch_convert_trade(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[Conversion]: ...

    async def fetch_convert_trade(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_convert_trade`, of an account."""
        return await self.read("fetch_convert_trade", {"id": id, "code": code, "params": params}, mode, how)

    @overload
    async def fetch_convert_trade_history(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Conversion]: ...

    @overload
    async def fetch_convert_trade_history(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Conversion]]: ...

    async def fetch_convert_trade_history(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_convert_trade_history`, of an account."""
        return await self.read(
            "fetch_convert_trade_history", {"code": code, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_cross_borrow_rate(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> CrossBorrowRate: ...

    @overload
    async def fetch_cross_borrow_rate(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[CrossBorrowRate]: ...

    async def fetch_cross_borrow_rate(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_cross_borrow_rate`."""
        return await self.read("fetch_cross_borrow_rate", {"code": code, "params": params}, mode, how)

    @overload
    async def fetch_cross_borrow_rates(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> dict[str, CrossBorrowRate]: ...

    @overload
    async def fetch_cross_borrow_rates(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[dict[str, CrossBorrowRate]]: ...

    async def fetch_cross_borrow_rates(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_cross_borrow_rates`, of an account."""
        return await self.read("fetch_cross_borrow_rates", {"params": params}, mode, how)

    @overload
    async def fetch_currencies(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> dict[str, CurrencyInterface]: ...

    @overload
    async def fetch_currencies(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[dict[str, CurrencyInterface]]: ...

    async def fetch_currencies(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_currencies`."""
        return await self.read("fetch_currencies", {"params": params}, mode, how)

    @overload
    async def fetch_deposit(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> Transaction: ...

    @overload
    async def fetch_deposit(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[Transaction]: ...

    async def fetch_deposit(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_deposit`, of an account."""
        return await self.read("fetch_deposit", {"id": id, "code": code, "params": params}, mode, how)

    @overload
    async def fetch_deposit_withdraw_fee(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> DepositWithdrawFee: ...

    @overload
    async def fetch_deposit_withdraw_fee(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[DepositWithdrawFee]: ...

    async def fetch_deposit_withdraw_fee(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_deposit_withdraw_fee`."""
        return await self.read("fetch_deposit_withdraw_fee", {"code": code, "params": params}, mode, how)

    @overload
    async def fetch_deposit_withdraw_fees(
        self,
        codes: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, DepositWithdrawFee]: ...

    @overload
    async def fetch_deposit_withdraw_fees(
        self,
        codes: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, DepositWithdrawFee]]: ...

    async def fetch_deposit_withdraw_fees(
        self,
        codes: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_deposit_withdraw_fees`."""
        return await self.read("fetch_deposit_withdraw_fees", {"codes": codes, "params": params}, mode, how)

    @overload
    async def fetch_deposits(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Transaction]: ...

    @overload
    async def fetch_deposits(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Transaction]]: ...

    async def fetch_deposits(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_deposits`, of an account."""
        return await self.read(
            "fetch_deposits", {"code": code, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_deposits_withdrawals(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Transaction]: ...

    @overload
    async def fetch_deposits_withdrawals(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Transaction]]: ...

    async def fetch_deposits_withdrawals(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_deposits_withdrawals`, of an account."""
        return await self.read(
            "fetch_deposits_withdrawals", {"code": code, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_free_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> dict[str, float]: ...

    @overload
    async def fetch_free_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[dict[str, float]]: ...

    async def fetch_free_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_free_balance`, of an account."""
        return await self.read("fetch_free_balance", {"params": params}, mode, how)

    @overload
    async def fetch_funding_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[FundingHistory]: ...

    @overload
    async def fetch_funding_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[FundingHistory]]: ...

    async def fetch_funding_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_funding_history`, of an account."""
        return await self.read(
            "fetch_funding_history", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_funding_interval(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> FundingRate: ...

    @overload
    async def fetch_funding_interval(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[FundingRate]: ...

    async def fetch_funding_interval(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_funding_interval`."""
        return await self.read("fetch_funding_interval", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_funding_intervals(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, FundingRate]: ...

    @overload
    async def fetch_funding_intervals(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, FundingRate]]: ...

    async def fetch_funding_intervals(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_funding_intervals`."""
        return await self.read("fetch_funding_intervals", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_funding_rate(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> FundingRate: ...

    @overload
    async def fetch_funding_rate(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[FundingRate]: ...

    async def fetch_funding_rate(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_funding_rate`."""
        return await self.read("fetch_funding_rate", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_funding_rate_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[FundingRateHistory]: ...

    @overload
    async def fetch_funding_rate_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[FundingRateHistory]]: ...

    async def fetch_funding_rate_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_funding_rate_history`."""
        return await self.read(
            "fetch_funding_rate_history",
            {"symbol": symbol, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_funding_rates(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, FundingRate]: ...

    @overload
    async def fetch_funding_rates(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, FundingRate]]: ...

    async def fetch_funding_rates(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_funding_rates`."""
        return await self.read("fetch_funding_rates", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_greeks(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> Greeks: ...

    @overload
    async def fetch_greeks(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[Greeks]: ...

    async def fetch_greeks(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_greeks`."""
        return await self.read("fetch_greeks", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_index_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[OHLCV]: ...

    @overload
    async def fetch_index_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[OHLCV]]: ...

    async def fetch_index_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_index_ohlcv`."""
        return await self.read(
            "fetch_index_ohlcv",
            {"symbol": symbol, "timeframe": timeframe, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_isolated_borrow_rate(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> IsolatedBorrowRate: ...

    @overload
    async def fetch_isolated_borrow_rate(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[IsolatedBorrowRate]: ...

    async def fetch_isolated_borrow_rate(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_isolated_borrow_rate`."""
        return await self.read("fetch_isolated_borrow_rate", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_isolated_borrow_rates(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> dict[str, IsolatedBorrowRate]: ...

    @overload
    async def fetch_isolated_borrow_rates(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[dict[str, IsolatedBorrowRate]]: ...

    async def fetch_isolated_borrow_rates(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_isolated_borrow_rates`."""
        return await self.read("fetch_isolated_borrow_rates", {"params": params}, mode, how)

    @overload
    async def fetch_l2_order_book(
        self,
        symbol: str,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> OrderBook: ...

    @overload
    async def fetch_l2_order_book(
        self,
        symbol: str,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[OrderBook]: ...

    async def fetch_l2_order_book(
        self,
        symbol: str,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_l2_order_book`."""
        return await self.read("fetch_l2_order_book", {"symbol": symbol, "limit": limit, "params": params}, mode, how)

    @overload
    async def fetch_l3_order_book(
        self,
        symbol: str,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> OrderBookL3: ...

    @overload
    async def fetch_l3_order_book(
        self,
        symbol: str,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[OrderBookL3]: ...

    async def fetch_l3_order_book(
        self,
        symbol: str,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_l3_order_book`."""
        return await self.read("fetch_l3_order_book", {"symbol": symbol, "limit": limit, "params": params}, mode, how)

    @overload
    async def fetch_last_prices(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, LastPrice]: ...

    @overload
    async def fetch_last_prices(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, LastPrice]]: ...

    async def fetch_last_prices(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_last_prices`."""
        return await self.read("fetch_last_prices", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_ledger(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[LedgerEntry]: ...

    @overload
    async def fetch_ledger(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[LedgerEntry]]: ...

    async def fetch_ledger(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_ledger`, of an account."""
        return await self.read(
            "fetch_ledger", {"code": code, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_ledger_entry(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> LedgerEntry: ...

    @overload
    async def fetch_ledger_entry(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[LedgerEntry]: ...

    async def fetch_ledger_entry(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_ledger_entry`, of an account."""
        return await self.read("fetch_ledger_entry", {"id": id, "code": code, "params": params}, mode, how)

    @overload
    async def fetch_leverage(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> Leverage: ...

    @overload
    async def fetch_leverage(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[Leverage]: ...

    async def fetch_leverage(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_leverage`, of an account."""
        return await self.read("fetch_leverage", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_leverage_tiers(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, list[LeverageTier]]: ...

    @overload
    async def fetch_leverage_tiers(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, list[LeverageTier]]]: ...

    async def fetch_leverage_tiers(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_leverage_tiers`."""
        return await self.read("fetch_leverage_tiers", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_leverages(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> dict[str, Leverage]: ...

    @overload
    async def fetch_leverages(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[dict[str, Leverage]]: ...

    async def fetch_leverages(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_leverages`, of an account."""
        return await self.read("fetch_leverages", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_liquidations(
        self,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[Liquidation]: ...

    @overload
    async def fetch_liquidations(
        self,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[Liquidation]]: ...

    async def fetch_liquidations(
        self,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_liquidations`."""
        return await self.read(
            "fetch_liquidations", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_long_short_ratio(
        self,
        symbol: str,
        timeframe: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> LongShortRatio: ...

    @overload
    async def fetch_long_short_ratio(
        self,
        symbol: str,
        timeframe: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[LongShortRatio]: ...

    async def fetch_long_short_ratio(
        self,
        symbol: str,
        timeframe: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_long_short_ratio`."""
        return await self.read(
            "fetch_long_short_ratio", {"symbol": symbol, "timeframe": timeframe, "params": params}, mode, how
        )

    @overload
    async def fetch_long_short_ratio_history(
        self,
        symbol: str | None = None,
        timeframe: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[LongShortRatio]: ...

    @overload
    async def fetch_long_short_ratio_history(
        self,
        symbol: str | None = None,
        timeframe: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[LongShortRatio]]: ...

    async def fetch_long_short_ratio_history(
        self,
        symbol: str | None = None,
        timeframe: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_long_short_ratio_history`."""
        return await self.read(
            "fetch_long_short_ratio_history",
            {"symbol": symbol, "timeframe": timeframe, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_margin_adjustment_history(
        self,
        symbol: str | None = None,
        type: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[MarginModification]: ...

    @overload
    async def fetch_margin_adjustment_history(
        self,
        symbol: str | None = None,
        type: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[MarginModification]]: ...

    async def fetch_margin_adjustment_history(
        self,
        symbol: str | None = None,
        type: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_margin_adjustment_history`, of an account."""
        return await self.read(
            "fetch_margin_adjustment_history",
            {"symbol": symbol, "type": type, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_margin_mode(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> MarginMode: ...

    @overload
    async def fetch_margin_mode(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[MarginMode]: ...

    async def fetch_margin_mode(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_margin_mode`, of an account."""
        return await self.read("fetch_margin_mode", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_margin_modes(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> dict[str, MarginMode]: ...

    @overload
    async def fetch_margin_modes(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[dict[str, MarginMode]]: ...

    async def fetch_margin_modes(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_margin_modes`, of an account."""
        return await self.read("fetch_margin_modes", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_mark_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[OHLCV]: ...

    @overload
    async def fetch_mark_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[OHLCV]]: ...

    async def fetch_mark_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_mark_ohlcv`."""
        return await self.read(
            "fetch_mark_ohlcv",
            {"symbol": symbol, "timeframe": timeframe, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_mark_price(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> Ticker: ...

    @overload
    async def fetch_mark_price(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[Ticker]: ...

    async def fetch_mark_price(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_mark_price`."""
        return await self.read("fetch_mark_price", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_mark_prices(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, Ticker]: ...

    @overload
    async def fetch_mark_prices(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, Ticker]]: ...

    async def fetch_mark_prices(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_mark_prices`."""
        return await self.read("fetch_mark_prices", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_market_leverage_tiers(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> list[LeverageTier]: ...

    @overload
    async def fetch_market_leverage_tiers(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[list[LeverageTier]]: ...

    async def fetch_market_leverage_tiers(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_market_leverage_tiers`."""
        return await self.read("fetch_market_leverage_tiers", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_markets(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> list[MarketInterface]: ...

    @overload
    async def fetch_markets(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[list[MarketInterface]]: ...

    async def fetch_markets(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_markets`."""
        return await self.read("fetch_markets", {"params": params}, mode, how)

    @overload
    async def fetch_my_liquidations(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Liquidation]: ...

    @overload
    async def fetch_my_liquidations(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Liquidation]]: ...

    async def fetch_my_liquidations(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_my_liquidations`, of an account."""
        return await self.read(
            "fetch_my_liquidations", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_my_settlement_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[dict[str, Any]]: ...

    @overload
    async def fetch_my_settlement_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[dict[str, Any]]]: ...

    async def fetch_my_settlement_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_my_settlement_history`, of an account."""
        return await self.read(
            "fetch_my_settlement_history",
            {"symbol": symbol, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_my_trades(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Trade]: ...

    @overload
    async def fetch_my_trades(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Trade]]: ...

    async def fetch_my_trades(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_my_trades`, of an account."""
        return await self.read(
            "fetch_my_trades", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[OHLCV]: ...

    @overload
    async def fetch_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[OHLCV]]: ...

    async def fetch_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_ohlcv`."""
        return await self.read(
            "fetch_ohlcv",
            {"symbol": symbol, "timeframe": timeframe, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_open_interest(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> OpenInterest: ...

    @overload
    async def fetch_open_interest(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[OpenInterest]: ...

    async def fetch_open_interest(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_open_interest`."""
        return await self.read("fetch_open_interest", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_open_interest_history(
        self,
        symbol: str,
        timeframe: str = "1h",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[OpenInterest]: ...

    @overload
    async def fetch_open_interest_history(
        self,
        symbol: str,
        timeframe: str = "1h",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[OpenInterest]]: ...

    async def fetch_open_interest_history(
        self,
        symbol: str,
        timeframe: str = "1h",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_open_interest_history`."""
        return await self.read(
            "fetch_open_interest_history",
            {"symbol": symbol, "timeframe": timeframe, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_open_interests(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, OpenInterest]: ...

    @overload
    async def fetch_open_interests(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, OpenInterest]]: ...

    async def fetch_open_interests(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_open_interests`."""
        return await self.read("fetch_open_interests", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_open_order(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> Order: ...

    @overload
    async def fetch_open_order(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[Order]: ...

    async def fetch_open_order(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_open_order`, of an account."""
        return await self.read("fetch_open_order", {"id": id, "symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_open_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Order]: ...

    @overload
    async def fetch_open_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Order]]: ...

    async def fetch_open_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_open_orders`, of an account."""
        return await self.read(
            "fetch_open_orders", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_option(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> Option: ...

    @overload
    async def fetch_option(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[Option]: ...

    async def fetch_option(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_option`."""
        return await self.read("fetch_option", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_option_chain(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> dict[str, Option]: ...

    @overload
    async def fetch_option_chain(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[dict[str, Option]]: ...

    async def fetch_option_chain(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_option_chain`."""
        return await self.read("fetch_option_chain", {"code": code, "params": params}, mode, how)

    @overload
    async def fetch_order(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> Order: ...

    @overload
    async def fetch_order(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[Order]: ...

    async def fetch_order(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_order`, of an account."""
        return await self.read("fetch_order", {"id": id, "symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_order_book(
        self,
        symbol: str,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> OrderBook: ...

    @overload
    async def fetch_order_book(
        self,
        symbol: str,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[OrderBook]: ...

    async def fetch_order_book(
        self,
        symbol: str,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_order_book`."""
        return await self.read("fetch_order_book", {"symbol": symbol, "limit": limit, "params": params}, mode, how)

    @overload
    async def fetch_order_books(
        self,
        symbols: Sequence[str] | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, OrderBook]: ...

    @overload
    async def fetch_order_books(
        self,
        symbols: Sequence[str] | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, OrderBook]]: ...

    async def fetch_order_books(
        self,
        symbols: Sequence[str] | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_order_books`."""
        return await self.read("fetch_order_books", {"symbols": symbols, "limit": limit, "params": params}, mode, how)

    @overload
    async def fetch_order_status(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> str: ...

    @overload
    async def fetch_order_status(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[str]: ...

    async def fetch_order_status(
        self,
        id: str,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_order_status`, of an account."""
        return await self.read("fetch_order_status", {"id": id, "symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_order_trades(
        self,
        id: str,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Trade]: ...

    @overload
    async def fetch_order_trades(
        self,
        id: str,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Trade]]: ...

    async def fetch_order_trades(
        self,
        id: str,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_order_trades`, of an account."""
        return await self.read(
            "fetch_order_trades",
            {"id": id, "symbol": symbol, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Order]: ...

    @overload
    async def fetch_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Order]]: ...

    async def fetch_orders(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_orders`, of an account."""
        return await self.read(
            "fetch_orders", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_position(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> Position: ...

    @overload
    async def fetch_position(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[Position]: ...

    async def fetch_position(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_position`, of an account."""
        return await self.read("fetch_position", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_position_adl_rank(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> ADL: ...

    @overload
    async def fetch_position_adl_rank(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[ADL]: ...

    async def fetch_position_adl_rank(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_position_adl_rank`, of an account."""
        return await self.read("fetch_position_adl_rank", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_position_history(
        self,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Position]: ...

    @overload
    async def fetch_position_history(
        self,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Position]]: ...

    async def fetch_position_history(
        self,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_position_history`, of an account."""
        return await self.read(
            "fetch_position_history", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_position_mode(
        self,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> PositionModeInfo: ...

    @overload
    async def fetch_position_mode(
        self,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[PositionModeInfo]: ...

    async def fetch_position_mode(
        self,
        symbol: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_position_mode`, of an account."""
        return await self.read("fetch_position_mode", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_positions(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Position]: ...

    @overload
    async def fetch_positions(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Position]]: ...

    async def fetch_positions(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_positions`, of an account."""
        return await self.read("fetch_positions", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_positions_adl_rank(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[ADL]: ...

    @overload
    async def fetch_positions_adl_rank(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[ADL]]: ...

    async def fetch_positions_adl_rank(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_positions_adl_rank`, of an account."""
        return await self.read("fetch_positions_adl_rank", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_positions_for_symbol(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> list[Position]: ...

    @overload
    async def fetch_positions_for_symbol(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[list[Position]]: ...

    async def fetch_positions_for_symbol(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_positions_for_symbol`, of an account."""
        return await self.read("fetch_positions_for_symbol", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_positions_history(
        self,
        symbols: Sequence[str] | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Position]: ...

    @overload
    async def fetch_positions_history(
        self,
        symbols: Sequence[str] | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Position]]: ...

    async def fetch_positions_history(
        self,
        symbols: Sequence[str] | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_positions_history`, of an account."""
        return await self.read(
            "fetch_positions_history", {"symbols": symbols, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_positions_risk(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Position]: ...

    @overload
    async def fetch_positions_risk(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Position]]: ...

    async def fetch_positions_risk(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_positions_risk`, of an account."""
        return await self.read("fetch_positions_risk", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_premium_index_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[OHLCV]: ...

    @overload
    async def fetch_premium_index_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[OHLCV]]: ...

    async def fetch_premium_index_ohlcv(
        self,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_premium_index_ohlcv`."""
        return await self.read(
            "fetch_premium_index_ohlcv",
            {"symbol": symbol, "timeframe": timeframe, "since": since, "limit": limit, "params": params},
            mode,
            how,
        )

    @overload
    async def fetch_settlement_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[dict[str, Any]]: ...

    @overload
    async def fetch_settlement_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[dict[str, Any]]]: ...

    async def fetch_settlement_history(
        self,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_settlement_history`."""
        return await self.read(
            "fetch_settlement_history", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_status(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> Status: ...

    @overload
    async def fetch_status(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[Status]: ...

    async def fetch_status(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_status`."""
        return await self.read("fetch_status", {"params": params}, mode, how)

    @overload
    async def fetch_ticker(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> Ticker: ...

    @overload
    async def fetch_ticker(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[Ticker]: ...

    async def fetch_ticker(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_ticker`."""
        return await self.read("fetch_ticker", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_tickers(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, Ticker]: ...

    @overload
    async def fetch_tickers(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, Ticker]]: ...

    async def fetch_tickers(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_tickers`."""
        return await self.read("fetch_tickers", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_time(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> int: ...

    @overload
    async def fetch_time(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[int]: ...

    async def fetch_time(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_time`."""
        return await self.read("fetch_time", {"params": params}, mode, how)

    @overload
    async def fetch_total_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> dict[str, float]: ...

    @overload
    async def fetch_total_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[dict[str, float]]: ...

    async def fetch_total_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_total_balance`, of an account."""
        return await self.read("fetch_total_balance", {"params": params}, mode, how)

    @overload
    async def fetch_trades(
        self,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> list[Trade]: ...

    @overload
    async def fetch_trades(
        self,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[list[Trade]]: ...

    async def fetch_trades(
        self,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_trades`."""
        return await self.read(
            "fetch_trades", {"symbol": symbol, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_trading_fee(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> TradingFeeInterface: ...

    @overload
    async def fetch_trading_fee(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[TradingFeeInterface]: ...

    async def fetch_trading_fee(
        self, symbol: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_trading_fee`, of an account."""
        return await self.read("fetch_trading_fee", {"symbol": symbol, "params": params}, mode, how)

    @overload
    async def fetch_trading_fees(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> dict[str, TradingFeeInterface]: ...

    @overload
    async def fetch_trading_fees(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[dict[str, TradingFeeInterface]]: ...

    async def fetch_trading_fees(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_trading_fees`."""
        return await self.read("fetch_trading_fees", {"params": params}, mode, how)

    @overload
    async def fetch_trading_limits(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, Any]: ...

    @overload
    async def fetch_trading_limits(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[PublicHow],
    ) -> All[dict[str, Any]]: ...

    async def fetch_trading_limits(
        self,
        symbols: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[PublicHow],
    ) -> Any:
        """ccxt's `fetch_trading_limits`."""
        return await self.read("fetch_trading_limits", {"symbols": symbols, "params": params}, mode, how)

    @overload
    async def fetch_transaction_fee(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> dict[str, Any]: ...

    @overload
    async def fetch_transaction_fee(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[dict[str, Any]]: ...

    async def fetch_transaction_fee(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_transaction_fee`, of an account."""
        return await self.read("fetch_transaction_fee", {"code": code, "params": params}, mode, how)

    @overload
    async def fetch_transaction_fees(
        self,
        codes: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> dict[str, Any]: ...

    @overload
    async def fetch_transaction_fees(
        self,
        codes: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[dict[str, Any]]: ...

    async def fetch_transaction_fees(
        self,
        codes: Sequence[str] | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_transaction_fees`, of an account."""
        return await self.read("fetch_transaction_fees", {"codes": codes, "params": params}, mode, how)

    @overload
    async def fetch_transactions(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Transaction]: ...

    @overload
    async def fetch_transactions(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Transaction]]: ...

    async def fetch_transactions(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_transactions`, of an account."""
        return await self.read(
            "fetch_transactions", {"code": code, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_transfer(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> TransferEntry: ...

    @overload
    async def fetch_transfer(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[TransferEntry]: ...

    async def fetch_transfer(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_transfer`, of an account."""
        return await self.read("fetch_transfer", {"id": id, "code": code, "params": params}, mode, how)

    @overload
    async def fetch_transfers(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[TransferEntry]: ...

    @overload
    async def fetch_transfers(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[TransferEntry]]: ...

    async def fetch_transfers(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_transfers`, of an account."""
        return await self.read(
            "fetch_transfers", {"code": code, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def fetch_underlying_assets(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> list[str]: ...

    @overload
    async def fetch_underlying_assets(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[list[str]]: ...

    async def fetch_underlying_assets(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_underlying_assets`."""
        return await self.read("fetch_underlying_assets", {"params": params}, mode, how)

    @overload
    async def fetch_used_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[AccountHow]
    ) -> dict[str, float]: ...

    @overload
    async def fetch_used_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[AccountHow]
    ) -> All[dict[str, float]]: ...

    async def fetch_used_balance(
        self, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[AccountHow]
    ) -> Any:
        """ccxt's `fetch_used_balance`, of an account."""
        return await self.read("fetch_used_balance", {"params": params}, mode, how)

    @overload
    async def fetch_volatility_history(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["any"] = "any", **how: Unpack[PublicHow]
    ) -> list[dict[str, Any]]: ...

    @overload
    async def fetch_volatility_history(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[list[dict[str, Any]]]: ...

    async def fetch_volatility_history(
        self, code: str, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `fetch_volatility_history`."""
        return await self.read("fetch_volatility_history", {"code": code, "params": params}, mode, how)

    @overload
    async def fetch_withdrawal(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> Transaction: ...

    @overload
    async def fetch_withdrawal(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[Transaction]: ...

    async def fetch_withdrawal(
        self,
        id: str,
        code: str | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_withdrawal`, of an account."""
        return await self.read("fetch_withdrawal", {"id": id, "code": code, "params": params}, mode, how)

    @overload
    async def fetch_withdrawals(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[AccountHow],
    ) -> list[Transaction]: ...

    @overload
    async def fetch_withdrawals(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["all"],
        **how: Unpack[AccountHow],
    ) -> All[list[Transaction]]: ...

    async def fetch_withdrawals(
        self,
        code: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Mode = "any",
        **how: Unpack[AccountHow],
    ) -> Any:
        """ccxt's `fetch_withdrawals`, of an account."""
        return await self.read(
            "fetch_withdrawals", {"code": code, "since": since, "limit": limit, "params": params}, mode, how
        )

    @overload
    async def load_markets(
        self,
        reload: bool = False,
        params: Mapping[str, Any] = EMPTY,
        *,
        mode: Literal["any"] = "any",
        **how: Unpack[PublicHow],
    ) -> dict[str, MarketInterface]: ...

    @overload
    async def load_markets(
        self, reload: bool = False, params: Mapping[str, Any] = EMPTY, *, mode: Literal["all"], **how: Unpack[PublicHow]
    ) -> All[dict[str, MarketInterface]]: ...

    async def load_markets(
        self, reload: bool = False, params: Mapping[str, Any] = EMPTY, *, mode: Mode = "any", **how: Unpack[PublicHow]
    ) -> Any:
        """ccxt's `load_markets`."""
        return await self.read("load_markets", {"reload": reload, "params": params}, mode, how)
