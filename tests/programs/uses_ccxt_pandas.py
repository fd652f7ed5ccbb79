# pyright: basic, reportMissingImports=false
"""What ccxt-pandas' own page shows, with the drop-in in place of ccxt."""

import asyncio
from typing import Any

import ccxt_fleet.ccxt as ccxt  # type: ignore[import-not-found, unused-ignore]  # noqa: PLR0402
import ccxt_fleet.ccxt_async as ccxt_async  # type: ignore[import-not-found, unused-ignore]  # noqa: PLR0402
import ccxt_pandas  # type: ignore[import-not-found, unused-ignore]

exchange: Any = ccxt_pandas.CCXTPandasExchange(exchange=ccxt.binance())
print("candles", exchange.fetch_ohlcv(symbol="BTC/USDT", timeframe="1m", limit=1000).shape)
print("trades", exchange.fetch_trades(symbol="BTC/USDT", limit=1000).shape)
print("book", exchange.fetch_order_book(symbol="BTC/USDT", limit=50).shape)
print("tickers", exchange.fetch_tickers().shape)


async def main() -> None:
    """The same for its async class."""
    exchange: Any = ccxt_pandas.AsyncCCXTPandasExchange(ccxt_async.okx())
    print("trades", (await exchange.fetch_trades(symbol="BTC/USDT")).shape)
    await exchange.close()


asyncio.run(main())
