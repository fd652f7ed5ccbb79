"""The parameters that a call really sends, read from the URL and body that ccxt makes; costs depend on them.

ccxt's `params` are not enough: a producer's own entries replace those that ccxt sets, each exchange writes lists and
numbers its own way, and some parameters end up in the path.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

# Values by name: names in lower case, values as sent. With several values, or none, the meaning is unknown.
Sent: TypeAlias = Mapping[str, Sequence[str]]

NOTHING: Final[Sent] = {}
_JSON: Final = msgspec.json.Encoder()
_IN_PATH: Final = re.compile(r"\\\{([\w-]+)\\\}")
_PACKED_OBJECT: Final = "eyJ"  # an object's first two characters in base64
_WHOLE: Final = re.compile(r"[1-9][0-9]{0,8}")
_INSTANT: Final = re.compile(r"[0-9]{1,15}")
_UNIT_MS: Final = {"s": 1e3, "m": 6e4, "h": 3.6e6, "d": 8.64e7, "w": 6.048e8, "M": 28 * 8.64e7}
_BAR: Final = re.compile(rf"([1-9][0-9]{{0,3}})([{''.join(_UNIT_MS)}])")


def read(path: str, request: Mapping[str, Any]) -> Sent:
    """Reads a request.

    Args:
        path: ccxt's path, with its placeholders.
        request: what ccxt's `sign` returns.
    """
    parts = urlsplit(str(request["url"]))
    sent: dict[str, list[str]] = {}
    for key, value in (*parse_qsl(parts.query, keep_blank_values=True), *_of_body(request.get("body"))):
        # Items of a list are sent as `pair[0]`: whether an exchange reads the list, the item or nothing is not known.
        name, bracket, _ = key.partition("[")
        sent.setdefault(name.casefold(), []).extend([value, value] if bracket else [value])
    names: list[str] = _IN_PATH.findall(re.escape(path))
    if names:
        pattern = _IN_PATH.sub("(.+)", re.escape(path))
        found = re.search(f"(?:^|/){pattern}$", unquote(parts.path))
        for number, name in enumerate(names, 1):
            sent.setdefault(name.casefold(), []).extend([found[number]] if found else [])
    return sent


def _of_body(body: Any) -> list[tuple[str, str]]:
    text = body.decode() if isinstance(body, bytes) else body or ""
    if text.startswith(_PACKED_OBJECT):
        text = _unpacked(text)
    if not text.startswith(("{", "[")):
        return parse_qsl(text, keep_blank_values=True)
    found = msgspec.json.decode(text)
    return list(_of_object("", cast("dict[str, Any]", found))) if isinstance(found, dict) else []


def _unpacked(text: str) -> str:
    """The object in JSON that a body holds in base64, as Coinone's do; the text itself where it holds none."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return text


def _of_object(before: str, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """All values, also those within objects, as ``object.name``."""
    for name, value in found.items():
        yield before + name, value if isinstance(value, str) else _JSON.encode(value).decode()
        if isinstance(value, dict):
            yield from _of_object(f"{before}{name}.", cast("dict[str, Any]", value))


def one(sent: Sent, name: str) -> str | None:
    """The value of a parameter; None if it is absent or empty, or if there are several."""
    values = sent.get(name.casefold(), ())
    return values[0] if len(values) == 1 and values[0].strip() else None


def size(value: str) -> int | None:
    """A whole number from 1, or the length of a list in JSON; None for anything else."""
    if _WHOLE.fullmatch(value):
        return int(value)
    try:
        return len(msgspec.json.decode(value, type=list[str])) or None
    except (msgspec.DecodeError, RecursionError):
        return None


def stretch_ms(sent: Sent, since: str, until: str) -> float | None:
    """The time between two instants in Unix milliseconds; None if one can't be read, or if they are in no order."""
    start, end = (one(sent, name) for name in (since, until))
    if start is None or end is None or not (_INSTANT.fullmatch(start) and _INSTANT.fullmatch(end)):
        return None
    return float(end) - float(start) if int(start) <= int(end) else None


def bar_ms(sent: Sent, name: str) -> float | None:
    """A bar's length, as in ``15m``, in milliseconds; that of the shortest month for one. None for anything else."""
    found = _BAR.fullmatch(one(sent, name) or "")
    return float(found[1]) * _UNIT_MS[found[2]] if found else None


def as_params(sent: Sent) -> dict[str, str]:
    """What a call sends as ccxt's parameters, for its cost functions; without those by which ccxt repeats calls."""
    return {name: values[0] for name, values in sent.items() if values and not name.startswith("maxretries")}


def for_ccxt(params: Mapping[str, Any], sent: Sent, config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in the form that ccxt's own cost function takes: numbers as numbers, nothing that is empty.

    Args:
        params: ccxt's, of the same call.
        sent: what the call really sends.
        config: the endpoint's entry in ccxt's table. Its `byLimit` has pairs of a limit and its cost, the dearest last;
            a limit that is no number counts as that one.
    """
    given = dict(params)
    for name in params:
        if name.casefold() not in sent:
            continue
        value = one(sent, name)
        if value is None:
            del given[name]
        else:
            given[name] = int(value) if _WHOLE.fullmatch(value) else value
    if "byLimit" in config and "limit" in params and not isinstance(given.get("limit"), int):
        given["limit"] = config["byLimit"][-1][0]
    return given
