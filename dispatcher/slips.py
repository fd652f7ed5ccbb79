"""What a wrong name may have been meant for. Pure."""

import difflib
import re
from collections.abc import Collection
from typing import Final

from msgspec.structs import fields

from schemas import old_names
from schemas.explained import choices
from schemas.messages import Request
from schemas.methods import FORBIDDEN_READS, PRIVATE_READS, PUBLIC_READS

_FIELDS: Final = [field.encode_name for field in fields(Request)]
# What producers put beside `args` instead of into it.
_ARGUMENTS: Final = frozenset({"symbol", "symbols", "timeframe", "since", "until", "limit", "params", "code", "codes"})
# Fields of other systems, and what comes nearest here.
_OTHER_NAMES: Final = {
    "exchange": "exchanges",
    "lane": "exchanges",
    "lanes": "exchanges",
    "mode": "exchanges_mode",
    "timeout": "deadline_ms",
    "timeout_ms": "deadline_ms",
    "ttl": "deadline_ms",
    "kwargs": "args",
    "arguments": "args",
    "request_id": "id",
}
# Longer names are no slips, and comparing them would take long.
_LONGEST: Final = 128
_WORD_STARTS: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
# Currency codes of some exchanges and charts, and what ccxt calls them (its `commonCurrencies`).
_CODES: Final = {"XBT": "BTC", "XDG": "DOGE", "BCHSV": "BSV"}
_OTHER_CODE: Final = re.compile("|".join(_CODES))
_SEPARATORS: Final = re.compile(r"[^A-Z0-9]")
# `binance:BTCUSDT` and `BINANCE:BTC/USDT`, but not `BTC/USDT:USDT`.
_OF_EXCHANGE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]*:(?=[^:]{3})")
# How charts mark a perpetual.
_PERPETUAL: Final = re.compile(r"([.\-_/]?PERP(ETUAL)?|\.P|[\-_]SWAP)$")


def field(error: str) -> str:
    """What may be meant where an error of decoding a request names an unknown field or word; else empty."""
    if words := choices(error, Request):
        return f"; expected one of {', '.join(words)}"
    unknown = _UNKNOWN.search(error)
    if unknown is None:
        return ""
    name = unknown[1][:_LONGEST]
    if name in _ARGUMENTS:
        return f"; {name} belongs into args"
    snake = _snake(name)
    meant = _OTHER_NAMES.get(snake) or next(iter(difflib.get_close_matches(snake, _FIELDS, n=1)), "")
    return f"; is {meant} meant?" if meant else f"; a request has {', '.join(_FIELDS)}"


def method(name: str) -> str:
    """What may be meant by an unknown method; empty where nothing is near, or where the method is known."""
    if name in FORBIDDEN_READS:
        return ""
    snake = _snake(name[:_LONGEST]).replace("-", "_").removesuffix("_ws")
    known = sorted(PUBLIC_READS | PRIVATE_READS)
    meant = snake if snake in known else next(iter(difflib.get_close_matches(snake, known, n=1, cutoff=0.8)), "")
    return f"; is {meant!r} meant?" if meant and meant != name else ""


def _snake(name: str) -> str:
    return _WORD_STARTS.sub("_", name).lower()


def exchange(name: str, known: Collection[str]) -> str:
    """What may be meant by an exchange that the fleet does not have; empty where nothing is near."""
    plain = name.strip().lower()
    if "," in plain:
        return '; a name has no comma: list several, as in ["binance", "okx"]'
    head, _, symbol = plain.partition(":")
    by_case = {each.lower(): each for each in known}
    meant = by_case.get(old_names.today(head), "")
    if not meant and (near := difflib.get_close_matches(plain, list(by_case), n=1, cutoff=0.75)):
        meant = by_case[near[0]]
    return f"; is {meant!r} meant?{' A symbol belongs into args' if symbol else ''}" if meant else ""


def letters(symbol: str) -> str:
    """A symbol's letters and digits, with ccxt's currency codes: the same for BTC/USDT, btc-usdt and XBTUSDT."""
    return _OTHER_CODE.sub(lambda found: _CODES[found[0]], _SEPARATORS.sub("", symbol.upper()))


def symbol(name: str) -> str:
    """A symbol as other programs write it, without the exchange before it and the mark of a perpetual behind it."""
    plain = _OF_EXCHANGE.sub("", name.strip(), count=1) if _OF_EXCHANGE.match(name.strip()) else name.strip()
    return _PERPETUAL.sub("", plain.upper().replace("%2F", "/"))
