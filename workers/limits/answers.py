"""What an exchange's answers mean where neither the HTTP status nor ccxt's class says it: facts from the tables.

An exchange says "too many calls", "your clock is wrong" or "no such symbol" in its own codes and words, often at status
200. Each such answer is an entry ``[[answers]]`` in ``limits/<exchange>.toml``. An exchange without a table is read by
the entries of all tables, as many speak like Binance or OKX. Left out there are entries that name a status, and codes
but for `SHARED` meanings: one exchange's code for "busy" is another's for "no such order".
Pure: nothing is read after the tables are loaded.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, TypeAlias, get_args

from msgspec import Meta, Struct

# limit: too many calls. clock: our time, or a nonce, is wrong. region: it does not serve our address. busy: overloaded,
# or a failure of its own. key: the key, or its account. symbol: no such market. arguments: the request.
# unsupported: what was asked for is switched off, or not there.
Means: TypeAlias = Literal["limit", "clock", "region", "busy", "key", "symbol", "arguments", "unsupported"]
# The reader of the headers with the exchange's own count: `workers/exchange/counts.py`.
Reader: TypeAlias = Literal["binance", "bybit", "htx", "kucoin"]
MEANINGS: Final[tuple[Means, ...]] = get_args(Means)
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]

# Meanings whose codes are read at exchanges without a table too.
SHARED: Final[tuple[Means, ...]] = ("limit", "clock", "symbol", "key")
# Nothing is missed if "Too Many Requests" is found for "too many requests".
_FLAGS: Final = re.IGNORECASE


class Answer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way in which an exchange says something. Letter case makes no difference.

    Args:
        means: what it says.
        source: where that is published, or where it was seen.
        status: only at this HTTP status; at any when None.
        fields: JSON fields, one of which has to hold the text; anywhere in the body when empty.
        equals: one of these is the field's value, as a number or as text.
        contains: one of these is part of the value, or of a list of values.
        followed_by: one of these comes later in the same JSON object.
        without: only if the answer has none of these headers, in lower case.
        until: after the text comes the instant until which no call may be sent, in Unix seconds or milliseconds.
        pause_s: how long to send no call if the answer does not say it.
        note: what one should know about it.
    """

    means: Means
    source: Text
    status: int | None = None
    fields: tuple[Text, ...] = ()
    equals: tuple[Text, ...] = ()
    contains: tuple[Text, ...] = ()
    followed_by: tuple[Text, ...] = ()
    without: tuple[Text, ...] = ()
    until: bool = False
    pause_s: Positive | None = None
    note: str = ""

    @property
    def wrong(self) -> str:
        """What contradicts itself, and what is expected instead; empty if nothing does."""
        if (self.means == "limit") != (self.pause_s is not None):
            return "pause_s: expected for `limit`, and for nothing else"
        if self.equals and self.contains:
            return "contains: expected nothing beside `equals`"
        if self.equals and not self.fields:
            return "fields: expected the fields that `equals` speaks of"
        if self.status is None and not self.texts:
            return "contains: expected at least one of `status`, `equals` and `contains`"
        if (self.fields or self.followed_by or self.until) and not self.texts:
            return "contains: expected a text, or `equals`"
        if self.until and self.means != "limit":
            return "until: expected for `limit` alone"
        if any(name != name.lower() for name in self.without):
            return "without: expected names in lower case"
        return ""

    @property
    def texts(self) -> tuple[str, ...]:
        """What it looks for: one of them is in every body that says this."""
        return self.equals or self.contains

    @property
    def pattern(self) -> "re.Pattern[str] | None":
        """How it is found in a body; None where the status says it all."""
        if not self.texts:
            return None
        found = f"(?:{_any(self.texts)})"
        if self.equals:
            found = rf'"(?:{_any(self.fields)})"\s*:\s*"?{found}(?![\w.])'
        elif self.fields:
            found = rf'"(?:{_any(self.fields)})"\s*:\s*(?:"[^"]*?|\[[^\]]*?){found}'
        if self.until:
            found += r"(?:\W{0,3}(?P<until>\d{10,13}))?"
        if self.followed_by:
            found += rf"[^}}]*(?:{_any(self.followed_by)})"
        return re.compile(found, _FLAGS)


# What the networks say that stand before exchanges, whichever exchange it is.
_NETWORKS: Final = (
    Answer(
        means="region",
        contains=("configured to block access from your country",),
        source="docs.aws.amazon.com: CloudFront, restricting the geographic distribution of content",
    ),
    Answer(
        means="region",
        contains=("banned the country or region your IP address is in", "error code: 1009"),
        source="developers.cloudflare.com: Cloudflare 1xxx errors, 1009",
    ),
)


class PauseHeader(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A header that says how long to send no call, beside Retry-After.

    Args:
        gives: an ``instant`` in Unix seconds or milliseconds, or the time left in ``seconds`` or ``milliseconds``.
        source: where that is published, or where it was seen.
    """

    gives: Literal["instant", "seconds", "milliseconds"]
    source: Text


class Found(Struct, frozen=True):
    """An entry that an answer matches, and the instant that it names, in Unix seconds or milliseconds."""

    answer: Answer
    until: float | None = None


class _Known:
    """All entries of one meaning. Patterns cost 20 times as much as words, and nearly all bodies are data."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._entries = [(answer, answer.pattern) for answer in answers]
        self._words = sorted({text.lower() for answer, _ in self._entries for text in answer.texts})
        self._statuses = frozenset(answer.status for answer, pattern in self._entries if pattern is None)

    def find(self, status: int | None, body: str, headers: Iterable[str]) -> Found | None:
        if status not in self._statuses:
            lowered = body.lower()
            if not any(word in lowered for word in self._words):
                return None
        for answer, pattern in self._entries:
            if answer.status not in (None, status):
                continue
            if answer.without and not {name.lower() for name in headers}.isdisjoint(answer.without):
                continue
            if pattern is None:
                return Found(answer)
            if found := pattern.search(body):
                until = found["until"] if answer.until else None
                return Found(answer, float(until) if until else None)
        return None


class Answers:
    """What the answers of one exchange mean.

    Args:
        answers: its entries; the first one that matches counts.
        pause_headers: headers that say how long to send no call, by their names in lower case.
        endpoint_alone: it limits each endpoint alone: a refusal says nothing of its other endpoints.
        counts: the reader of its own counts; None where it sends none, or no reader knows their form.
    """

    def __init__(
        self,
        answers: Iterable[Answer] = (),
        pause_headers: Mapping[str, PauseHeader] | None = None,
        *,
        endpoint_alone: bool = False,
        counts: Reader | None = None,
    ) -> None:
        entries = [*answers, *_NETWORKS]
        self._known = {means: _Known(entry for entry in entries if entry.means == means) for means in MEANINGS}
        self.pause_headers = dict(pause_headers or {})
        self.endpoint_alone = endpoint_alone
        self.counts: Reader | None = counts

    def find(self, means: Means, status: int | None, body: str, headers: Iterable[str] = ()) -> Found | None:
        """The first entry with this meaning that an answer matches.

        Args:
            means: the meaning.
            status: the answer's HTTP status.
            body: its start.
            headers: the names of its headers, in any case.
        """
        return self._known[means].find(status, body, headers)


def _any(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, texts))
