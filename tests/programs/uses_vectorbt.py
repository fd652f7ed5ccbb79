# pyright: basic, reportMissingImports=false
"""vectorbt's CCXTData: with an instance of the drop-in, and by an exchange's name, for ``ccxt-fleet run``."""

import sys
from typing import Any

import vectorbt  # type: ignore[import-not-found, unused-ignore]

exchange: Any
if sys.argv[1:] == ["by-name"]:
    exchange = "okx"
else:
    import ccxt_fleet.ccxt as ccxt  # type: ignore[import-not-found, unused-ignore]  # noqa: PLR0402

    exchange = ccxt.binance()
data: Any = vectorbt.CCXTData.download(
    ["BTC/USDT", "ETH/USDT"], start="6 hours ago UTC", timeframe="1m", exchange=exchange, show_progress=False
)
print("closes", data.get("Close").shape)
