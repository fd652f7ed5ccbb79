"""What a wrong name may have been meant for."""

import pytest

from dispatcher import slips

FLEET = ["binance", "coinbase", "kraken", "kraken.eu", "okx", "Desk1"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Binance", "binance"),
        ("BINANCE", "binance"),
        (" okx ", "okx"),
        ("binanec", "binance"),
        ("desk1", "Desk1"),
        ("binance:BTCUSDT", "binance"),
        ("OKEX", "okx"),
        ("mtgox", ""),
        ("", ""),
        ("x" * 128, ""),
    ],
)
def test_an_exchange(name: str, meant: str) -> None:
    said = slips.exchange(name, FLEET)
    assert (f"is {meant!r} meant?" in said) if meant else said == ""
    assert ("args" in said) is (":" in name)


def test_several_exchanges_in_one_name() -> None:
    assert "list several" in slips.exchange("okx, binance", FLEET)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("fetchTicker", "fetch_ticker"),
        ("fetchOHLCV", "fetch_ohlcv"),
        ("fetchL2OrderBook", "fetch_l2_order_book"),
        ("FETCH_TICKER", "fetch_ticker"),
        ("fetch-ticker", "fetch_ticker"),
        ("fetch_tikcer", "fetch_ticker"),
        ("fetch_ticker_ws", "fetch_ticker"),
        ("fetch_ticker", ""),
        ("fetch_convert_quote", ""),
        ("create_order", ""),
        ("__class__", ""),
        ("x" * 128, ""),
    ],
)
def test_a_method(name: str, meant: str) -> None:
    assert slips.method(name) == (f"; is {meant!r} meant?" if meant else "")


@pytest.mark.parametrize(
    "name",
    [
        *("BTC/USDT", "btc-usdt", "BTC_USDT", "BTCUSDT", "XBTUSDT", "binance:BTCUSDT", "BINANCE:BTC/USDT"),
        *("BTCUSDT.P", "BTC-USDT-SWAP", "BTCUSDT-PERP", " BTC USDT ", "xbt/usdt", "BTC%2FUSDT", "XBTUSDT-PERPETUAL"),
    ],
)
def test_a_symbol_has_the_letters_of_the_one_that_is_meant(name: str) -> None:
    assert slips.letters(slips.symbol(name)) == "BTCUSDT"


@pytest.mark.parametrize("name", ["BTC/USDT:USDT", "ETH/USD:BTC-251226", "", ":", "a:b"])
def test_a_symbol_of_ccxt_keeps_what_is_behind_its_colon(name: str) -> None:
    assert slips.symbol(name) == name.upper()
