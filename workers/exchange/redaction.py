"""Takes secrets out of texts from outside: an exchange or a proxy may repeat in an error what it was sent."""

import base64
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import aiohttp

from schemas.accounts import HIDDEN, Secret

from .causes import cause

# Takes secrets out of a text.
Hide: TypeAlias = Callable[[str], str]

# A shorter secret, as a user's number may be, would be found in any text.
HIDDEN_FROM: Final = 6
# The longest message of an error.
MESSAGE_LIMIT: Final = 300
# How much of a text from outside is looked at.
_READ: Final = 4096
# Each finds its beginning once, or a text that is full of beginnings takes long: an address is taken without a query
# too, and a scheme begins where its word does.
_QUERY: Final = re.compile(r"(https?://[^\s?'\"]+)(?:\?[^\s'\"]*)?")
_USER: Final = re.compile(r"((?<!\w)\w+://)[^\s/@]+@")
_SECRET: Final = re.compile(r"(?i)\b(signature|api-?_?key|secret|passphrase|token)([\"']?\s*[=:]\s*[\"']?)[^\s&,\"'}]+")


class Redactor:
    """Finds secrets as they are, and as URLs, JSON, HTML and base64 write them.

    Args:
        secrets: what must not show; those of less than `HIDDEN_FROM` characters are left out.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        plain = {secret.reveal() for secret in secrets if len(secret.reveal()) >= HIDDEN_FROM}
        texts = sorted(plain.union(*map(_in_base64, plain)), key=len, reverse=True)
        # The longest part of each secret that no encoding changes: a quick look, as nearly all texts hold none.
        self._cores = [max(re.findall(r"[0-9A-Za-z]*", text), key=len) for text in texts]
        self._in_bytes = [core.encode() for core in self._cores]
        self._pattern = re.compile("|".join(map(_any_form, texts)), re.IGNORECASE)

    def hide(self, text: str) -> str:
        """The text without the secrets. Give it the whole text: half a secret is not found."""
        return self._pattern.sub(HIDDEN, text) if any(core in text for core in self._cores) else text

    def suspects(self, body: bytes) -> bool:
        """Whether the bytes may hold a secret in any form; without it they hold none."""
        return any(core in body for core in self._in_bytes)

    def hide_in(self, data: Any) -> Any:
        """What ccxt returned, without the secrets."""
        if isinstance(data, str):
            return self.hide(data)
        if isinstance(data, dict):
            table: dict[Any, Any] = data  # pyright: ignore[reportUnknownVariableType]
            return {self.hide_in(key): self.hide_in(value) for key, value in table.items()}
        if isinstance(data, list):
            items: list[Any] = data  # pyright: ignore[reportUnknownVariableType]
            return [self.hide_in(item) for item in items]
        return data


def _in_base64(text: str) -> set[str]:
    """A text within base64: its characters that do not depend on its neighbours, for each of the three offsets."""
    found: set[str] = set()
    for before in range(3):
        raw = b"\0" * before + text.encode()
        found.add(base64.b64encode(raw).decode()[-(-before * 8 // 6) : len(raw) * 8 // 6])
    return found


def _any_form(text: str) -> str:
    """A pattern that finds a text however its characters beside letters and digits are encoded."""
    return "".join(char if char.isascii() and char.isalnum() else _any_form_of(char) for char in text)


def _any_form_of(char: str) -> str:
    in_url = "".join(f"%{byte:02x}" for byte in char.encode())
    in_base64_of_urls = {"+": "|-", "/": "|_"}.get(char, "")
    code = ord(char)
    return rf"\\*(?:{re.escape(char)}|{in_url}|u{code:04x}|&#(?:{code}|x0*{code:x});{in_base64_of_urls})"


def clean(text: str, hide: Hide) -> str:
    """A text in one line, without queries, passwords of proxies, or what looks like a secret; cut where it is long.

    Args:
        text: from outside.
        hide: takes the known secrets out.
    """
    # More is read than is kept: a secret at the end must not be cut in two before it is hidden.
    text = hide(text[: 2 * _READ])[:_READ]
    text = _SECRET.sub(r"\1\2…", _USER.sub(r"\1", _QUERY.sub(r"\1", text)))
    return " ".join(text.split())


def in_one_line(error: BaseException, hide: Hide = str) -> str:
    """An error's class, its cause and its text in one line, cleaned and cut.

    Args:
        error: whatever was raised.
        hide: takes the known secrets out.
    """
    why, said = cause(error), str(error)
    if isinstance(error, aiohttp.ClientError):
        said = "" if why else said
    parts = (clean(part, hide) for part in (why, said))
    text = "; ".join(part for part in parts if part)
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:MESSAGE_LIMIT]
