"""What a wrong name may have been meant for. Pure."""

import difflib
import re
from collections.abc import Collection
from typing import Final, get_args

from msgspec.structs import fields

from schemas import old_names
from schemas.explained import choices
from schemas.messages import Request, Strategy
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
    "max_age": "max_age_ms",
    "maxage": "max_age_ms",
    "kwargs": "args",
    "arguments": "args",
    "request_id": "id",
}
# Longer names are no slips, and comparing them would take long.
_LONGEST: Final = 128
_WORD_STARTS: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# What the fields hold, for those who send something else.
_HOLDS: Final = {
    "args": 'a table of arguments by their names, as {"symbol": "BTC/USDT"}',
    "exchanges": 'a list of names, as ["okx"]',
    "exchanges_mode": '"any" or "all"',
    "strategy": f"one of {', '.join(get_args(Strategy))}",
    "deadline_ms": "a point in time in Unix milliseconds: a whole number, neither text nor a date",
    "priority": '"live" or "bulk"',
    "hedge_ms": "a duration in milliseconds: a whole number from 1 to 3,600,000",
    "max_age_ms": 'a duration in milliseconds: a whole number from 0 to 86,400,000; or "bar", for candles',
    "id": "text",
    "method": 'text, as "fetch_ticker"',
    "http": 'a table with the URL of one call, as {"url": "https://…"}',
    "account": "the name of an account, as text",
}
_OF_FIELD: Final = re.compile(r" - at `\$\.(\w+)")
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
    """What would be right where an error of decoding a request names a field: another name, or what it holds."""
    if words := choices(error, Request):
        return f"; expected one of {', '.join(words)}"
    unknown = _UNKNOWN.search(error)
    if unknown is None:
        return _value(error)
    name = unknown[1][:_LONGEST]
    if name in _ARGUMENTS:
        return f"; {name} belongs into args"
    snake = _snake(name)
    meant = _OTHER_NAMES.get(snake) or next(iter(difflib.get_close_matches(snake, _FIELDS, n=1)), "")
    return f"; is {meant} meant?" if meant else f"; a request has {', '.join(_FIELDS)}"


def _value(error: str) -> str:
    """What a field holds of which an error tells; empty where it names none."""
    if "got `bytes`" in error or ("Expected `str`" in error and "`key`" in error):
        return "; texts are packed as str, not as bin (bytes)"
    of = _OF_FIELD.search(error)
    return f"; {of[1]} is {_HOLDS[of[1]]}" if of and of[1] in _HOLDS else ""


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
