"""What a program gets for an HTTP call of an exchange's public API."""

import base64
import gzip
from collections.abc import Mapping
from typing import Any, Self

from msgspec import Struct, json


class HttpAnswer(Struct, frozen=True):
    """The exchange's answer.

    Args:
        status: the HTTP status; 400 and the like are answers, too.
        headers: by their names in lower case.
        content: the body, decompressed.
        age_ms: as in a result: None unless it was fetched for an equal call.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    age_ms: int | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any], age_ms: int | None = None) -> Self:
        """An answer of the data of a result, and its age (`docs/messages.md`, HTTP calls)."""
        packed = data.get("body_gzip")
        content = str(data["body"]).encode() if packed is None else gzip.decompress(base64.b64decode(packed))
        return cls(data["status"], data["headers"], content, age_ms)

    @property
    def text(self) -> str:
        """The body as text; what is no UTF-8 in it is replaced."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """The body's value; raises msgspec.DecodeError where it is no JSON."""
        return json.decode(self.content)
