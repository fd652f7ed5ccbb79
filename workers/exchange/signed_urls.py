"""Finds the endpoint that a signed call is of, and whose key it carries, as ccxt's class would have signed it.

Each endpoint is signed with stand-ins of keys. Where that of the key turns up is where a call has its own. Pure.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from ..limits import wire
from ..limits.costs import Costs
from .public_urls import Form, Urls, all_endpoints

# Stands for a key; Gemini wants it to begin so.
KEY: Final = "account-0zqxkeyxqz0"
_STAND_INS: Final = {
    "apiKey": KEY,
    "secret": base64.b64encode(b"s" * 64).decode(),
    "privateKey": "0x" + "1" * 64,
    "walletAddress": "0x" + "2" * 40,
}
_OTHER: Final = "0zqxotherxqz0"
# A part of a header, as in ``deri-hmac-sha256 id=…,ts=…``.
_PART: Final = re.compile(rf"(?:^|[\s,;])([^\s,;=]+=){KEY}(?:[\s,;]|$)")


class Place(Struct, frozen=True):
    """Where a call has its key: a header, a parameter, or a field in the token of a header.

    Args:
        kind: which of them.
        name: the header's or the parameter's, in lower case.
        field: the token's; of a header with several parts the one's name, with its ``=``.
    """

    kind: Literal["header", "part", "parameter", "token"]
    name: str
    field: str = ""

    def key_of(self, headers: Mapping[str, str], sent: wire.Sent) -> str:
        """The key that a call carries there; empty without one.

        Args:
            headers: the call's, by their names in lower case.
            sent: its parameters.
        """
        if self.kind == "header":
            return headers.get(self.name, "")
        if self.kind == "part":
            found = re.search(rf"(?:^|[\s,;]){re.escape(self.field)}([^\s,;]+)", headers.get(self.name, ""))
            return found[1] if found else ""
        if self.kind == "parameter":
            return wire.one(sent, self.name) or ""
        return str(_claims(headers.get(self.name, "")).get(self.field, ""))


class Signable(Struct, frozen=True):
    """An endpoint as ccxt calls it, where a call to it goes, and where it has its key, if that is known."""

    endpoint: Any
    url: str
    place: Place | None


class SignedUrls(Urls):
    """All endpoints of a lane's exchange that ccxt can sign, by their URLs; see `Urls`.

    Args:
        exchange: the lane's instance of ccxt's class; it gets stand-ins of keys.
        usual: see `Urls`.
        costs: see `Urls`.
    """

    def __init__(self, exchange: Any, usual: Any | None, costs: Costs) -> None:
        for each in (exchange, usual):
            if each is not None:
                _stand_in(each)
        super().__init__(exchange, usual, all_endpoints(exchange), costs)

    def _rank(self, form: Form) -> tuple[float, ...]:
        """As of all `Urls`, but private ones first, and of those that cost as ccxt says the dearest one.

        Some exchanges have one URL for all, and the name of what is done in the body.
        """
        cost = form.endpoint.config.get("cost", 1)
        is_public = _place(form.endpoint.path, form.made) is None
        return is_public, *super()._rank(form), -cost if isinstance(cost, (int, float)) else 0

    def find(self, method: str, url: str) -> Signable:
        """The endpoint of a call.

        Raises:
            NotSupported: ccxt knows no such endpoint of the exchange.
        """
        form, target = self.form(method, url)
        return Signable(form.endpoint, target, _place(form.endpoint.path, form.made))


def _stand_in(exchange: Any) -> None:
    for name in exchange.requiredCredentials:
        setattr(exchange, name, _STAND_INS.get(name, _OTHER))


def _place(path: str, made: Mapping[str, Any]) -> Place | None:
    headers: Mapping[str, Any] = made.get("headers") or {}
    for name, value in headers.items():
        if value == KEY:
            return Place("header", name.lower())
    for name, values in wire.read(path, made).items():
        if KEY in values:
            return Place("parameter", name)
    for name, value in headers.items():
        if part := _PART.search(str(value)):
            return Place("part", name.lower(), part[1])
        if field := next((field for field, said in _claims(str(value)).items() if said == KEY), ""):
            return Place("token", name.lower(), field)
    return None


def _claims(header: str) -> Mapping[str, Any]:
    """What a JSON Web Token in a header says (RFC 7519); empty where there is none."""
    parts = header.rpartition(" ")[2].split(".")
    if len(parts) != 3:
        return {}
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=dict[str, Any])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return {}
