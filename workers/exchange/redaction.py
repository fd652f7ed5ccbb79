"""Takes secrets out of what others say: an exchange, or a proxy, may well repeat in an error what it was sent."""

import base64
import re
from collections.abc import Iterable
from typing import Any, Final

from schemas.accounts import HIDDEN, Secret

# A user's number may be so short that it stands in any text.
HIDDEN_FROM: Final = 6


class Redactor:
    """Finds secrets as they are, and as URLs, JSON, HTML and base64 write them.

    Args:
        secrets: what must not show. Those of less than `HIDDEN_FROM` characters can't be told from other text.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        plain = {secret.reveal() for secret in secrets if len(secret.reveal()) >= HIDDEN_FROM}
        texts = sorted(plain.union(*map(_in_base64, plain)), key=len, reverse=True)
        # What no form changes: nearly all texts hold none of these, and looking for them costs next to nothing.
        self._cores = [max(re.findall(r"[0-9A-Za-z]*", text), key=len) for text in texts]
        self._in_bytes = [core.encode() for core in self._cores]
        self._pattern = re.compile("|".join(map(_any_form, texts)), re.IGNORECASE)

    def hide(self, text: str) -> str:
        """The text without them. Look at it before it is cut: a part of a secret is not found."""
        return self._pattern.sub(HIDDEN, text) if any(core in text for core in self._cores) else text

    def suspects(self, body: bytes) -> bool:
        """Whether one may be in there, in any form."""
        return any(core in body for core in self._in_bytes)

    def hide_in(self, data: Any) -> Any:
        """What ccxt returned, without them."""
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
    """A text within base64: what of it is the same whatever stands before and behind it, for each place in a group."""
    found: set[str] = set()
    for before in range(3):
        raw = b"\0" * before + text.encode()
        found.add(base64.b64encode(raw).decode()[-(-before * 8 // 6) : len(raw) * 8 // 6])
    return found


def _any_form(text: str) -> str:
    """A pattern of a text in which whatever is no letter or digit may be written in another way."""
    return "".join(char if char.isascii() and char.isalnum() else _any_form_of(char) for char in text)


def _any_form_of(char: str) -> str:
    in_url = "".join(f"%{byte:02x}" for byte in char.encode())
    in_base64_of_urls = {"+": "|-", "/": "|_"}.get(char, "")
    code = ord(char)
    return rf"\\*(?:{re.escape(char)}|{in_url}|u{code:04x}|&#(?:{code}|x0*{code:x});{in_base64_of_urls})"
