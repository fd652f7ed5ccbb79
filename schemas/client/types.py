"""What the reads answer, by the names of ccxt's types and fields. Written by `tests/support/client_code.py`."""

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

# Unix milliseconds, open, high, low, close, volume.
OHLCV: TypeAlias = list[float]


class ADL(TypedDict):
    """ccxt's ADL."""

    info: dict[str, Any]
    symbol: str | None
    rank: int | None
    rating: str | None
    percentage: float | None
    timestamp: int | None
    datetime: str | None


class Account(TypedDict):
    """ccxt's Account."""

    id: str | None
    type: str | None
    code: str | None
    info: dict[str, Any]
    name: str | None


class BorrowInterest(TypedDict):
    """ccxt's BorrowInterest."""

    info: dict[str, Any]
    symbol: str | None
    currency: str | None
    interest: float | None
    interestRate: float | None
    amountBorrowed: float | None
    marginMode: str | None
    timestamp: int | None
    datetime: str | None


class Conversion(TypedDict):
    """ccxt's Conversion."""

    info: dict[str, Any]
    timestamp: int | None
    datetime: str | None
    id: str | None
    fromCurrency: str | None
    fromAmount: float | None
    toCurrency: str | None
    toAmount: float | None
    price: float | None
    fee: float | None


class CrossBorrowRate(TypedDict):
    """ccxt's CrossBorrowRate."""

    info: dict[str, Any]
    currency: str | None
    rate: float | None
    period: float | None
    timestamp: int | None
    datetime: str | None


class Limit(TypedDict):
    """ccxt's Limit."""

    min: float | None
    max: float | None


class CurrencyLimits(TypedDict):
    """ccxt's CurrencyLimits."""

    amount: Limit
    withdraw: Limit


class CurrencyInterface(TypedDict):
    """ccxt's CurrencyInterface."""

    id: str
    code: str
    numericId: int | None
    precision: float | None
    type: str | None
    margin: bool | None
    name: str | None
    active: bool | None
    deposit: bool | None
    withdraw: bool | None
    fee: float | None
    limits: CurrencyLimits
    networks: dict[str, Any]
    fees: dict[str, Any]
    valueScale: int | None
    info: dict[str, Any]


class DepositWithdrawFeeNetwork(TypedDict):
    """ccxt's DepositWithdrawFeeNetwork."""

    fee: NotRequired[float | None]
    percentage: NotRequired[bool | None]


class DepositWithdrawFeeNetworkEntry(TypedDict):
    """ccxt's DepositWithdrawFeeNetworkEntry."""

    deposit: NotRequired[DepositWithdrawFeeNetwork]
    withdraw: NotRequired[DepositWithdrawFeeNetwork]


class DepositWithdrawFee(TypedDict):
    """ccxt's DepositWithdrawFee."""

    info: dict[str, Any]
    withdraw: NotRequired[DepositWithdrawFeeNetwork]
    deposit: NotRequired[DepositWithdrawFeeNetwork]
    networks: NotRequired[dict[str, DepositWithdrawFeeNetworkEntry]]


class FundingHistory(TypedDict):
    """ccxt's FundingHistory."""

    info: dict[str, Any]
    symbol: str | None
    code: str | None
    timestamp: int | None
    datetime: str | None
    id: str | None
    amount: float | None
    rate: float | None
    type: str | None


class FundingRate(TypedDict):
    """ccxt's FundingRate."""

    symbol: str | None
    info: dict[str, Any]
    timestamp: int | None
    fundingRate: float | None
    datetime: str | None
    markPrice: float | None
    indexPrice: float | None
    interestRate: float | None
    estimatedSettlePrice: float | None
    fundingTimestamp: int | None
    fundingDatetime: str | None
    nextFundingTimestamp: int | None
    nextFundingDatetime: str | None
    nextFundingRate: float | None
    previousFundingTimestamp: int | None
    previousFundingDatetime: str | None
    previousFundingRate: float | None
    interval: str | None


class FundingRateHistory(TypedDict):
    """ccxt's FundingRateHistory."""

    info: dict[str, Any]
    symbol: str | None
    fundingRate: float | None
    timestamp: int | None
    datetime: str | None


class Greeks(TypedDict):
    """ccxt's Greeks."""

    symbol: str | None
    timestamp: int | None
    datetime: str | None
    delta: float | None
    gamma: float | None
    theta: float | None
    vega: float | None
    rho: float | None
    vanna: float | None
    volga: float | None
    charm: float | None
    bidSize: float | None
    askSize: float | None
    bidImpliedVolatility: float | None
    askImpliedVolatility: float | None
    markImpliedVolatility: float | None
    bidPrice: float | None
    askPrice: float | None
    markPrice: float | None
    lastPrice: float | None
    underlyingPrice: float | None
    info: dict[str, Any]


class IsolatedBorrowRate(TypedDict):
    """ccxt's IsolatedBorrowRate."""

    info: dict[str, Any]
    symbol: str | None
    base: str | None
    baseRate: float | None
    quote: str | None
    quoteRate: float | None
    period: int | None
    timestamp: int | None
    datetime: str | None


class LastPrice(TypedDict):
    """ccxt's LastPrice."""

    symbol: str | None
    timestamp: int | None
    datetime: str | None
    price: float | None
    side: str | None
    info: dict[str, Any]


class FeeInterface(TypedDict):
    """ccxt's FeeInterface."""

    currency: str | None
    cost: float | None
    rate: NotRequired[float | None]


class LedgerEntry(TypedDict):
    """ccxt's LedgerEntry."""

    info: dict[str, Any]
    id: str | None
    timestamp: int | None
    datetime: str | None
    direction: str | None
    account: str | None
    referenceId: str | None
    referenceAccount: str | None
    type: str | None
    currency: str | None
    amount: float | None
    before: float | None
    after: float | None
    status: str | None
    fee: FeeInterface | None


class Leverage(TypedDict):
    """ccxt's Leverage."""

    info: dict[str, Any]
    symbol: str | None
    marginMode: str | None
    longLeverage: float | None
    shortLeverage: float | None


class LeverageTier(TypedDict):
    """ccxt's LeverageTier."""

    tier: float | None
    symbol: str | None
    currency: str | None
    minNotional: float | None
    maxNotional: float | None
    maintenanceMarginRate: float | None
    maxLeverage: float | None
    info: dict[str, Any]


class Liquidation(TypedDict):
    """ccxt's Liquidation."""

    info: dict[str, Any]
    symbol: str | None
    timestamp: int | None
    datetime: str | None
    price: float | None
    baseValue: float | None
    quoteValue: float | None
    contracts: float | None
    contractSize: float | None
    side: str | None


class LongShortRatio(TypedDict):
    """ccxt's LongShortRatio."""

    info: dict[str, Any]
    symbol: str | None
    timestamp: int | None
    datetime: str | None
    timeframe: str | None
    longShortRatio: float | None


class MarginMode(TypedDict):
    """ccxt's MarginMode."""

    info: dict[str, Any]
    symbol: str | None
    marginMode: str | None


class MarginModification(TypedDict):
    """ccxt's MarginModification."""

    info: dict[str, Any]
    symbol: str | None
    type: Literal["add", "reduce", "set"] | None
    marginMode: Literal["cross", "isolated"] | None
    amount: float | None
    total: float | None
    code: str | None
    status: str | None
    timestamp: int | None
    datetime: str | None


class MinMax(TypedDict):
    """ccxt's MinMax."""

    min: float | None
    max: float | None


class MarketLimits(TypedDict):
    """ccxt's MarketLimits."""

    amount: MinMax | None
    cost: MinMax | None
    leverage: MinMax | None
    price: MinMax | None
    market: MinMax | None


class MarketMarginModes(TypedDict):
    """ccxt's MarketMarginModes."""

    cross: bool
    isolated: bool


class Precision(TypedDict):
    """ccxt's Precision."""

    amount: float | None
    price: float | None
    cost: float | None
    base: float | None
    quote: float | None


class MarketInterface(TypedDict):
    """ccxt's MarketInterface."""

    id: str | None
    numericId: float | None
    uppercaseId: str | None
    lowercaseId: str | None
    symbol: str
    base: str
    quote: str
    baseId: str | None
    quoteId: str | None
    active: bool | None
    type: str | None
    subType: str | None
    spot: bool | None
    margin: bool | None
    swap: bool | None
    future: bool | None
    option: bool | None
    index: bool | None
    stock: bool | None
    prediction: bool | None
    contract: bool | None
    settle: str | None
    settleId: str | None
    contractSize: float | None
    linear: bool | None
    inverse: bool | None
    quanto: bool | None
    expiry: int | None
    expiryDatetime: str | None
    strike: float | None
    optionType: str | None
    taker: float | None
    maker: float | None
    percentage: bool | None
    tierBased: bool | None
    feeSide: str | None
    precision: Precision
    marginModes: MarketMarginModes
    limits: MarketLimits
    created: int | None
    baseName: str | None
    id2: str | None
    instIdCode: int | None
    tiers: dict[str, Any]
    info: dict[str, Any]
    market: str | None
    marketType: str | None
    executionModel: str | None
    collateral: str | None
    resolved: bool | None
    resolvedOutcome: str | None


class OpenInterest(TypedDict):
    """ccxt's OpenInterest."""

    symbol: str | None
    openInterestAmount: float | None
    openInterestValue: float | None
    baseVolume: float | None
    quoteVolume: float | None
    timestamp: int | None
    datetime: str | None
    info: dict[str, Any]


class Option(TypedDict):
    """ccxt's Option."""

    info: dict[str, Any]
    currency: str | None
    symbol: str | None
    timestamp: int | None
    datetime: str | None
    impliedVolatility: float | None
    openInterest: float | None
    bidPrice: float | None
    askPrice: float | None
    midPrice: float | None
    markPrice: float | None
    lastPrice: float | None
    underlyingPrice: float | None
    change: float | None
    percentage: float | None
    baseVolume: float | None
    quoteVolume: float | None


class Trade(TypedDict):
    """ccxt's Trade."""

    info: dict[str, Any]
    amount: float | None
    datetime: str | None
    id: str | None
    order: str | None
    price: float | None
    timestamp: int | None
    type: str | None
    side: str | None
    symbol: str | None
    takerOrMaker: str | None
    cost: float | None
    fee: FeeInterface | None
    fees: list[FeeInterface]


class Order(TypedDict):
    """ccxt's Order."""

    id: str | None
    clientOrderId: str | None
    datetime: str | None
    timestamp: int | None
    lastTradeTimestamp: int | None
    lastUpdateTimestamp: int | None
    status: str | None
    symbol: str | None
    type: str | None
    timeInForce: str | None
    side: str | None
    price: float | None
    average: float | None
    amount: float | None
    filled: float | None
    remaining: float | None
    stopPrice: float | None
    triggerPrice: float | None
    takeProfitPrice: float | None
    stopLossPrice: float | None
    cost: float | None
    trades: list[Trade]
    fee: FeeInterface | None
    fees: list[FeeInterface]
    reduceOnly: bool | None
    postOnly: bool | None
    marginMode: str | None
    leverage: float | None
    hedged: bool | None
    info: dict[str, Any]


class OrderBook(TypedDict):
    """ccxt's OrderBook."""

    asks: list[list[float]]
    bids: list[list[float]]
    datetime: str | None
    timestamp: int | None
    nonce: int | None
    symbol: str | None


class OrderBookL3(TypedDict):
    """ccxt's OrderBookL3."""

    asks: list[list[float]]
    bids: list[list[float]]
    datetime: str | None
    timestamp: int | None
    nonce: int | None
    symbol: str | None


class Position(TypedDict):
    """ccxt's Position."""

    symbol: str | None
    id: str | None
    info: dict[str, Any]
    timestamp: int | None
    datetime: str | None
    contracts: float | None
    contractSize: float | None
    side: str | None
    notional: float | None
    leverage: float | None
    unrealizedPnl: float | None
    realizedPnl: float | None
    positionMargin: float | None
    collateral: float | None
    entryPrice: float | None
    markPrice: float | None
    liquidationPrice: float | None
    marginMode: str | None
    hedged: bool | None
    maintenanceMargin: float | None
    maintenanceMarginPercentage: float | None
    initialMargin: float | None
    initialMarginPercentage: float | None
    marginRatio: float | None
    lastUpdateTimestamp: int | None
    lastPrice: float | None
    stopLossPrice: float | None
    takeProfitPrice: float | None
    percentage: float | None
    isolated: bool | None
    exitPrice: float | None


class PositionModeInfo(TypedDict):
    """ccxt's PositionModeInfo."""

    info: dict[str, Any]
    hedged: bool | None


class Status(TypedDict):
    """ccxt's Status."""

    status: str | None
    updated: int | None
    eta: int | None
    url: str | None
    info: dict[str, Any]


class Ticker(TypedDict):
    """ccxt's Ticker."""

    symbol: str | None
    info: dict[str, Any]
    timestamp: int | None
    datetime: str | None
    high: float | None
    low: float | None
    bid: float | None
    bidVolume: float | None
    ask: float | None
    askVolume: float | None
    vwap: float | None
    open: float | None
    close: float | None
    last: float | None
    previousClose: float | None
    change: float | None
    percentage: float | None
    average: float | None
    quoteVolume: float | None
    baseVolume: float | None
    indexPrice: float | None
    markPrice: float | None


class TradingFeeInterface(TypedDict):
    """ccxt's TradingFeeInterface."""

    info: dict[str, Any]
    symbol: str | None
    maker: float | None
    taker: float | None
    percentage: bool | None
    tierBased: bool | None
    tiers: dict[str, Any]


class Transaction(TypedDict):
    """ccxt's Transaction."""

    info: dict[str, Any]
    id: str | None
    txid: str | None
    timestamp: int | None
    datetime: str | None
    address: str | None
    addressFrom: str | None
    addressTo: str | None
    tag: str | None
    tagFrom: str | None
    tagTo: str | None
    type: str | None
    amount: float | None
    currency: str | None
    status: str | None
    updated: int | None
    fee: FeeInterface | None
    network: str | None
    comment: str | None
    internal: bool | None


class TransferEntry(TypedDict):
    """ccxt's TransferEntry."""

    info: dict[str, Any]
    id: str | None
    timestamp: int | None
    datetime: str | None
    currency: str | None
    amount: float | None
    fromAccount: str | None
    toAccount: str | None
    status: str | None
