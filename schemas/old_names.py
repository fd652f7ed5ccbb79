"""Exchange ids that ccxt had once: those that have another name today, and those that it gave up.

Collected from ccxt's own lists of exchanges, versions 1.10.1 to 4.5.90. A renamed id was an alias in one of them (huobi
is htx since 4.1), or a class for the same exchange at another version of its API.
"""

from collections.abc import Mapping
from typing import Final

RENAMED: Final[Mapping[str, str]] = {
    "bitcoincom": "fmfwio",
    "bitfinex2": "bitfinex",
    "bitpanda": "onetrading",
    "bitstamp1": "bitstamp",
    "coinbaseadvanced": "coinbase",
    "coinbasepro": "coinbaseexchange",
    "gateio": "gate",
    "gdax": "coinbaseexchange",
    "hitbtc2": "hitbtc",
    "hitbtc3": "hitbtc",
    "huobi": "htx",
    "huobijp": "bittrade",
    "huobipro": "htx",
    "lbank2": "lbank",
    "mexc3": "mexc",
    "okex": "okx",
    "okex3": "okx",
    "okex5": "okx",
}
# Closed since, or no longer kept up by ccxt; none has a successor in it.
GIVEN_UP: Final = frozenset(
    """
    _1broker _1btcxe aax ace acx adara aftermath allcoin anxpro aofex arkham ascendex bcex bibox binanceje bitbay
    bitcoincoid bitforex bitkk bitlish bitmarket bitmart bitmax bitmex bittrex bitz bkex bl3p bleutrade braziliex
    btcalpha btcchina btcex btcexchange btctradeim btctradeua btcx bter buda bw bxinth bytetrade ccex cdax chbtc
    chilebit cobinhood coinbaseprime coincatch coinegg coinex coinfalcon coinfloor coingi coinlist coinmarketcap
    coinmetro coinsecure coolcoin coss crex24 cryptopia currencycom defx dsx ellipx eqonex equos eterbase exmo exx
    fcoin fcoinjp flowbtc ftx ftxus fybse fybsg gatecoin gopax hbtc huobicny huobiru ice3x idex itbit jubi kkex kuna
    lakebtc liqui liquid livecoin lykke mixcoins nova novadax oceanex okcoin okcoincny okcoinusd oxfun
    poloniexfutures probit qryptos qtrade quadrigacx quoine rightbtc ripio southxchange stex stronghold surbitcoin
    theocean therock tidebit tidex timex topq tradeogre urdubit vaultoro vbtc vcc vertex virwox wavesexchange wazirx
    wex xbtce xena yobit yunbi zb zipmex zonda
    """.split()
)


def today(name: str) -> str:
    """The name that ccxt has today for an exchange: ``htx`` for ``huobi``; any other name as it is.

    A testnet's name, ``<exchange>-sandbox``, changes with the exchange's; ccxt's ids have no dash.
    """
    exchange, dash, rest = name.partition("-")
    return f"{RENAMED.get(exchange, exchange)}{dash}{rest}"


def remark(name: str) -> str:
    """What to say of a name that reaches nothing: that it is an old one; empty where nothing is known of it."""
    if (new := today(name)) != name:
        return f"{name} is {new} today"
    return f"ccxt gave {name} up, and it has no successor" if name in GIVEN_UP else ""
