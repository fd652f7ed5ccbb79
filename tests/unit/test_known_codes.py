"""Every code and text that ccxt knows of the eight first-rate exchanges, as its real class reads it, and our verdict.

`BY_KIND` says what each kind of exception comes to. `OWN` has the codes for which ccxt's kind is not right; everything
else must go by its kind. A code that a later ccxt adds is tested by itself.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from dispatcher import returns
from dispatcher.returns import Move
from schemas.messages import ErrorCode, Try
from workers.exchange.call import Heard, Seen
from workers.exchange.errors import judge
from workers.exchange.signals import limit_signal
from workers.limits.tables import shipped

C: Final = ErrorCode
END, ELSEWHERE, ANOTHER, DOUBTED = Move.END, Move.ELSEWHERE, Move.ANOTHER, Move.DOUBTED
OK, BAD = 200, 400
NOT_DONE: Final = (C.EXCHANGE_ERROR, END)
KEY: Final = (C.AUTHENTICATION, ELSEWHERE)
SYMBOL: Final = (C.BAD_SYMBOL, ELSEWHERE)
BUSY: Final = (C.EXCHANGE_UNAVAILABLE, ANOTHER)
LIMIT: Final = (C.RATE_LIMITED, ANOTHER)
CLOCK: Final = (C.CLOCK, ELSEWHERE)
ARGUMENTS: Final = (C.INVALID_ARGUMENTS, END)
UNSUPPORTED: Final = (C.NOT_SUPPORTED, ELSEWHERE)
REGION: Final = (C.RESTRICTED, ELSEWHERE)

# What a class comes to for a request that names a symbol.
BY_KIND: Final = {
    # The exchange's failure: tried again and elsewhere, whatever the status.
    **dict.fromkeys(["OperationFailed", "ExchangeNotAvailable", "NetworkError"], BUSY),
    "RequestTimeout": (C.EXCHANGE_TIMEOUT, ANOTHER),
    "OnMaintenance": (C.MAINTENANCE, ANOTHER),
    "BadResponse": (C.BAD_RESPONSE, ANOTHER),
    # Too many calls: the lane pauses, and a limit is learned.
    **dict.fromkeys(["RateLimitExceeded", "DDoSProtection"], LIMIT),
    # Not here: another lane may.
    **dict.fromkeys(["BadSymbol", "MarketClosed", "ContractUnavailable", "RestrictedLocation"], SYMBOL),
    **dict.fromkeys(["AuthenticationError", "PermissionDenied", "AccountNotEnabled", "AccountSuspended"], KEY),
    "ManualInteractionNeeded": KEY,
    "InvalidNonce": CLOCK,
    "NotSupported": UNSUPPORTED,
    # The request's fault: it ends.
    **dict.fromkeys(["BadRequest", "ArgumentsRequired"], ARGUMENTS),
    **dict.fromkeys(["InvalidOrder", "OrderNotFound", "OrderNotFillable", "OrderImmediatelyFillable"], NOT_DONE),
    **dict.fromkeys(["OperationRejected", "InsufficientFunds", "InvalidAddress", "CancelPending"], NOT_DONE),
    **dict.fromkeys(["NoChange", "MarginModeAlreadySet"], NOT_DONE),
}
# Words that ccxt has no kind for: at a 4xx this lane refuses them, at 200 the cause is not known.
UNKNOWN: Final = {OK: (C.EXCHANGE_ERROR, DOUBTED), BAD: (C.INVALID_ARGUMENTS, ELSEWHERE)}

OWN: Final[dict[str, dict[tuple[ErrorCode, Move], str]]] = {
    "binance": {
        BUSY: "-1000|-1001|-1006|-1016",
        KEY: "-2015",
        SYMBOL: "-1122|-4108|-4141",
        UNSUPPORTED: "-1020",
        LIMIT: "-1003|-1015",
        CLOCK: "-1021",
    },
    "okx": {
        BUSY: "50013|50026",
        KEY: "50010|50012|50100",
        LIMIT: "50061",
        CLOCK: "50112",
        UNSUPPORTED: "50005|50062",
    },
    "htx": {},
    "coinbase": {BUSY: "internal_server_error"},
    "kraken": {ARGUMENTS: "EGeneral:Invalid arguments:price"},
    "bybit": {
        LIMIT: "10009",  # a ban of the address
        BUSY: "5004|10016|170001|170032|170234|340099",
        REGION: "10024",
        SYMBOL: "10029",
        UNSUPPORTED: "10017|10028|170031|170227",
    },
    "kucoin": {
        BUSY: "429000|408000",
        REGION: "126046",
        SYMBOL: "126004|126006|126007",
        UNSUPPORTED: "401000|415000",
    },
    "gate": {CLOCK: "REQUEST_EXPIRED", SYMBOL: "CONTRACT_IN_DELISTING"},
}


def _number(code: str) -> bool:
    return code.removeprefix("-").isdigit()


FORMS: Final[dict[str, Callable[[str], Any]]] = {
    "binance": lambda code: {"code": int(code), "msg": "x"} if _number(code) else {"code": -9, "msg": code},
    "okx": lambda code: {"code": code if _number(code) else "1", "msg": code, "data": []},
    "htx": lambda code: {"status": "error", **({"err_code": int(code)} if _number(code) else {"err-code": code})},
    "coinbase": lambda code: {"error": code, "error_description": code},
    "kraken": lambda code: {"error": [f"EAny{code}" if code.startswith(":") else code]},
    "bybit": lambda code: {"retCode": int(code) if _number(code) else 9, "retMsg": code, "result": {}},
    "kucoin": lambda code: {"code": code if _number(code) else "1", "msg": code},
    "gate": lambda code: {"label": code, "message": code},
}
# Binance has codes of their own for each of its hosts.
HOSTS: Final = {
    "spot": "https://api.binance.com/api/v3/x",
    "linear": "https://fapi.binance.com/fapi/v1/x",
    "inverse": "https://dapi.binance.com/dapi/v1/x",
    "option": "https://eapi.binance.com/eapi/v1/x",
    "portfolioMargin": "https://papi.binance.com/papi/v1/x",
}


def codes(table: Any) -> Iterator[str]:
    """All codes and texts in one of ccxt's tables of exceptions, however it is nested."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from codes(value)
        else:
            yield name


def asked(exchange: Any) -> Iterator[tuple[str, str]]:
    """Where each code comes from, and the code."""
    for kind, table in exchange.exceptions.items():
        for code in codes(table):
            yield HOSTS.get(kind, HOSTS["spot"]), code


def answered(exchange: Any, url: str, status: int, body: Any) -> tuple[str, Seen, Exception]:
    """The class that ccxt makes of an answer, and what was seen."""
    text = json.dumps(body, separators=(",", ":"))
    seen = Seen(exchange.id, 1, Heard(status, text), args={"symbol": "BTC/USDT"})
    seen.heard.pause = limit_signal(shipped().answers(exchange.id), status, {}, text, 0.0)
    try:
        exchange.handle_errors(status, "", url, "GET", {}, text, body, {}, None)
        seen.heard.by_status = True
        exchange.handle_http_status_code(status, "", url, "GET", text)
        raise ccxt.BadResponse("no data")  # pyright: ignore[reportUnknownMemberType]
    except ccxt.BaseError as error:
        return type(error).__name__, seen, error


@pytest.mark.parametrize("status", [OK, BAD])
@pytest.mark.parametrize("name", FORMS)
def test_each_code_comes_to_what_its_kind_means(name: str, status: int) -> None:
    exchange: Any = getattr(ccxt, name)()
    own = {code: meant for meant, said in OWN[name].items() for code in said.split("|")}
    assert own.keys() <= {code for _, code in asked(exchange)}
    wrong: list[str] = []
    for url, code in asked(exchange):
        kind, seen, error = answered(exchange, url, status, FORMS[name](code))
        if seen.heard.by_status and status == OK:
            continue  # ccxt takes it for no error
        verdict = judge(error, seen)
        came = verdict.code, returns.move(Try(name, verdict.outcome, verdict.code))
        expected = own.get(code) or (UNKNOWN[status] if seen.heard.by_status else BY_KIND.get(kind, UNKNOWN[status]))
        if came != expected or (verdict.pause_s > 0) != (verdict.code is C.RATE_LIMITED):
            wrong.append(f"{code} {kind}: {came}, not {expected}")
    assert not wrong
