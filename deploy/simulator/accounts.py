"""Accounts to practise on, known to every exchange that has signed endpoints, and what signs a request."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Account(NamedTuple):
    """One account with its only key. The secret is base64, as Kraken wants it; the others take it as it is."""

    name: str
    key: str
    secret: str
    passphrase: str
    btc: str
    usdt: str


def _account(name: str, btc: str, usdt: str) -> Account:
    secret = base64.b64encode(f"the secret of the simulated account {name}".encode()).decode()
    return Account(name, f"simulated-key-{name}", secret, f"passphrase-{name}", btc, usdt)


ACCOUNTS = {account.key: account for account in (_account("anna", "1.5", "2500"), _account("boris", "0.25", "100"))}


class Signed(NamedTuple):
    """What a signature is made over. `headers` are found in any case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: str


def digest(secret: str | bytes, text: str | bytes, kind: Callable[..., Any] = hashlib.sha256) -> bytes:
    """The HMAC of a text."""
    key = secret.encode() if isinstance(secret, str) else secret
    return hmac.new(key, text.encode() if isinstance(text, str) else text, kind).digest()


def same(one: str, other: str) -> bool:
    """Whether two signatures are the same."""
    return hmac.compare_digest(one.encode(), other.encode())
