"""Which settings of a lane's `ccxt` table have an effect here, and what to set in place of those that have none.

ccxt takes any key in silence. The fleet's own connections, budgets and markets stand in for those of ccxt, so most of
ccxt's settings would change nothing; a proxy among them would leave calls to go out from the machine's own address.
Workers check further keys beside ccxt's classes: `workers/exchange/settings.py`.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .errors import ConfigError

# Attributes of ccxt's `Exchange` that may be set (ccxt 4.5.90). Tables are merged over ccxt's own.
TABLES: Final = frozenset(
    "commonCurrencies currencies fees has headers limits networkAliases options requiredCredentials timeframes urls "
    "userAgents".split()
)
TAKEN: Final = TABLES | frozenset(
    "accountId accounts features hostname login minFundingAddressLength paddingMode precisionMode reduceFees "
    "returnResponseHeaders substituteCommonCurrencyCodes twofa userAgent user_agent verbose version".split()
)

_PROXY: Final = "expected lanes.<lane>.proxy, the lane's own HTTP proxy; ccxt's proxies are not used"
_TLS: Final = "expected nothing: certificates are always checked, by the authorities that certifi lists"
_ENVIRONMENT: Final = "expected lanes.<lane>.proxy: proxies in the environment are not used"
_LIMITS: Final = "expected [limits.<exchange>]: ccxt's own limiter is off"
_CONNECTIONS: Final = "expected nothing: the connections are the fleet's own"
_MARKETS: Final = "expected nothing: markets are read from the exchange"
_STATE: Final = "expected nothing: ccxt keeps it for itself"
_ANSWERS: Final = "expected nothing: it stays as ccxt has it"
_STREAMS: Final = "expected nothing: there are no streams here"
_LAST: Final = "expected nothing: nobody reads the last answer"
_SANDBOX: Final = "expected lanes.<lane>.sandbox = true"
_ACCOUNT: Final = "expected in [accounts.<name>], by environment or file"

_WORDS: Final[Mapping[str, str]] = {
    _ACCOUNT: "apiKey secret password uid privateKey walletAddress token",
    _PROXY: """proxy proxies proxyUrl proxyUrlCallback httpProxy httpProxyCallback httpsProxy httpsProxyCallback
        socksProxy socksProxyCallback socksProxySessions wsProxy wssProxy wsSocksProxy aiohttpProxy
        aiohttpSocksConnector""",
    _ENVIRONMENT: "trustEnv aiohttpTrustEnv requestsTrustEnv",
    _TLS: "verify cafile sslContext validateServerSsl validateClientSsl",
    _CONNECTIONS: "session ownSession tcpConnector asyncioLoop synchronous origin timeoutOnExit closedByUser",
    "expected worker.http_timeout_s": "timeout",
    _LIMITS: """rateLimit enableRateLimit rateLimiterAlgorithm rateLimitMaxTokens rateLimitTokens rateLimitUpdateTime
        rollingWindowSize tokenBucket throttle throttler""",
    "expected [limits.<exchange>.endpoints], which says what calls cost; ccxt's `api` is only read there": "api",
    "expected lanes.<lane>.exchange": "id",
    _SANDBOX: "isSandboxModeEnabled sandbox sandboxMode",
    _MARKETS: """markets marketsById marketsLoading reloadingMarkets symbols ids codes currenciesById baseCurrencies
        quoteCurrencies precision loadedFees events eventsBySlug eventsLoading reloadingEvents outcomes outcomesById""",
    _LAST: """enableLastHttpResponse enableLastJsonResponse enableLastResponseHeaders lastHttpResponse lastJsonResponse
        lastRequestBody lastRequestHeaders lastRequestUrl lastResponseHeaders lastRestPollTimestamp
        lastRestRequestTimestamp""",
    _STATE: """balance bidsasks fetchHistoryCache fetchHistoryCacheSize fundingRates liquidations myLiquidations
        myTrades ohlcvs orderbooks orders positions restPollerLoopIsRunning restRequestQueue status tickers trades
        transactions triggerOrders logger""",
    _STREAMS: "clients newUpdates ping streaming",
    _ANSWERS: """MAXVALUE alias base58Alphabet base58Decoder base58Encoder certified comment countries dex ecdsaCurves
        ecdsaPrehashedAlgorithms exceptions extractParamsRegex handleContentTypeApplicationZip httpExceptions name
        parseJsonResponse pro quoteJsonNumbers""",
}
_OPTION_WORDS: Final[Mapping[str, str]] = {
    "expected dispatcher.max_attempts: ccxt repeats no call here": "maxRetries maxRetriesOnFailure "
    "maxRetriesOnFailureDelay",
    "expected nothing: the fleet measures the exchange's clock": "timeDifference adjustForTimeDifference",
    _SANDBOX: "sandboxMode sandbox enableDemoTrading",
    _TLS: "include_OS_certificates",
}
_URL_WORDS: Final[Mapping[str, str]] = {
    "expected urls.api: it leads no call anywhere": "www doc logo fees referral api_management apiBackup",
    _SANDBOX: "demo demotrading",
}


def _plain(name: str) -> str:
    """ccxt takes both ``ssl_context`` and ``sslContext``."""
    return name.replace("_", "").casefold()


def _by_name(words: Mapping[str, str]) -> dict[str, str]:
    return {_plain(name): said for said, names in words.items() for name in names.split()}


REFUSED: Final = _by_name(_WORDS)
_OPTIONS: Final = _by_name(_OPTION_WORDS)
_URLS: Final = _by_name(_URL_WORDS)


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """The names that are most like one that is unknown, for the end of an error; empty if none is."""
    plain: dict[str, str] = {}
    for each in known:
        plain.setdefault(_plain(each), each)
    found = difflib.get_close_matches(_plain(name), plain, most, 0.6)
    return f"; near it: {', '.join(plain[each] for each in found)}" if found else ""


def check(lane: str, settings: Mapping[str, Any], *, sandbox: bool) -> None:
    """Refuses settings that would have no effect.

    Args:
        lane: the lane's name.
        settings: its `ccxt` table.
        sandbox: whether it reaches the exchange's testnet.

    Raises:
        ConfigError: one has none; says which, and what to set instead.
    """
    for name, value in settings.items():
        where = f"lanes.{lane}.ccxt.{name}"
        if name in TAKEN:
            if name in TABLES and not isinstance(value, dict):
                raise ConfigError(f"{where}: expected a table")
            continue
        if said := REFUSED.get(_plain(name)):
            raise ConfigError(f"{where}: {_said(said, lane)}")
        raise ConfigError(f"{where}: ccxt has no such setting{nearest(name, TAKEN)}")
    for part, words in (("options", _OPTIONS), ("urls", _URLS)):
        for name in settings.get(part, {}):
            if said := words.get(_plain(name)):
                raise ConfigError(f"lanes.{lane}.ccxt.{part}.{name}: {_said(said, lane)}")
    urls = settings.get("urls", {})
    if sandbox and "api" in urls:
        raise ConfigError(f"lanes.{lane}.ccxt.urls.api: expected urls.test: a sandbox lane has the URLs of the testnet")
    if not sandbox and "test" in urls:
        raise ConfigError(f"lanes.{lane}.ccxt.urls.test: expected urls.api, or lanes.{lane}.sandbox = true beside it")


def _said(words: str, lane: str) -> str:
    return words.replace("<lane>", lane)
