"""What the fleet takes as an HTTP call of an exchange's public API, as far as its form tells. Pure.

Whether an exchange has such an endpoint is for the worker to say: it knows ccxt's classes.
"""

import contextlib
import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import DecodeError, json

from .messages import Http

# RFC 3986 leaves these out of URLs; a backslash is a slash to some programs.
_NOT_IN_URLS: Final = re.compile(r'[^!-~]|[\\<>"{}|^`]')
# In a segment of a path, once decoded. One that was encoded twice is another one to a server that decodes twice.
_NOT_IN_SEGMENTS: Final = re.compile(r"[/\\%?#;]|[^ -~]")
_SIGNS: Final = frozenset(
    """
    accesskey accesskeyid access_key api-key api_key apikey api_sig apisign api_sign auth passphrase secret secretkey
    sig sign signature signatureMethod x-mbx-apikey
    """.casefold().split()
)


def refusal(call: Http) -> str | None:
    """Why a call is not taken, whichever exchange it is for; None if it is. The text says what to change."""
    if why := malformed(call.url):
        return why
    if name := signed_by(call.url, call.body):
        return f"http is signed ({name[:40]}): only public calls are made, and queues would keep what it holds"
    if call.body and call.method == "GET":
        return "http.body: a GET has none"
    return None


def malformed(url: str) -> str | None:
    """Why a URL is not taken for its form; None if it is.

    URLs with a user, a fragment, or a path that leads upwards are refused rather than understood: two programs that
    read such a URL may read two addresses.
    """
    if found := _NOT_IN_URLS.search(url):
        return f"http.url has {found[0]!r} in it: percent-encode it"
    try:
        parts = urlsplit(url)
        has_user, _ = "@" in parts.netloc, parts.port
    except ValueError as error:
        return f"http.url is no URL: {error}"
    if parts.scheme.lower() not in ("https", "http") or not parts.hostname:
        return "http.url: expected the whole address, as in https://api.binance.com/api/v3/time"
    if has_user:
        return "http.url has a user in it: the fleet makes public calls only"
    if "#" in url:
        return "http.url has a fragment (#): leave it out, servers never see it"
    if any(_leads_away(segment) for segment in parts.path.split("/")):
        return "http.url: its path leads elsewhere, with . or .. or an encoded / or %"
    return None


def signed_by(url: str, body: str = "") -> str | None:
    """The parameter that shows that a call is signed, or carries a key; None where none does.

    Args:
        url: the call's.
        body: the call's; of JSON the names of an object are looked at.
    """
    names = [name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)]
    if body.lstrip()[:1] == "{":
        with contextlib.suppress(DecodeError, RecursionError):
            names += json.decode(body, type=dict[str, Any])
    elif body:
        names += [name for name, _ in parse_qsl(body, keep_blank_values=True)]
    return next((name for name in names if name.casefold() in _SIGNS), None)


def _leads_away(segment: str) -> bool:
    plain = unquote(segment, errors="replace")
    return plain in (".", "..") or _NOT_IN_SEGMENTS.search(plain) is not None
