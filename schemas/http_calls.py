"""What the fleet takes as an HTTP call of an exchange's public API, as far as its form tells. Pure.

Whether an exchange has such an endpoint is for the worker to say: it knows ccxt's classes.
"""

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

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
    """Why a call is not taken, whichever exchange it is for; None if it is. The text says what to change.

    URLs with a user, a fragment, or a path that leads upwards are refused rather than understood: two programs that
    read such a URL may read two addresses.
    """
    if found := _NOT_IN_URLS.search(call.url):
        return f"http.url has {found[0]!r} in it: percent-encode it"
    try:
        parts = urlsplit(call.url)
        has_user, _ = "@" in parts.netloc, parts.port
    except ValueError as error:
        return f"http.url is no URL: {error}"
    if parts.scheme.lower() not in ("https", "http") or not parts.hostname:
        return "http.url: expected the whole address, as in https://api.binance.com/api/v3/time"
    if has_user:
        return "http.url has a user in it: the fleet makes public calls only"
    if "#" in call.url:
        return "http.url has a fragment (#): leave it out, servers never see it"
    if any(_leads_away(segment) for segment in parts.path.split("/")):
        return "http.url: its path leads elsewhere, with . or .. or an encoded / or %"
    if signed := next((name for name, _ in parse_qsl(parts.query) if name.casefold() in _SIGNS), None):
        return f"http.url is signed ({signed[:40]}): only public calls are made, and queues would keep what it holds"
    if call.body and call.method == "GET":
        return "http.body: a GET has none"
    return None


def _leads_away(segment: str) -> bool:
    plain = unquote(segment, errors="replace")
    return plain in (".", "..") or _NOT_IN_SEGMENTS.search(plain) is not None
