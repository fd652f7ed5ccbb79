"""What an exchange's answers mean where neither the HTTP status nor ccxt's class says it: facts from the tables.

An exchange says "too many calls", "your clock is wrong" or "no such symbol" in its own codes and words, often at status
200. Each such answer is an entry ``[[answers]]`` in ``limits/<exchange>.toml``. An exchange without a table is read by
the entries of all tables, as many speak like Binance or OKX. Two sorts of entries are left out there: those that name a
status, and codes whose meaning is not in `SHARED`, as one exchange's code for "busy" is another's for "no such order".
Pure: nothing is read after the tables are loaded.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, TypeAlias, get_args

from msgspec import Meta, Struct

# limit: too many calls. ban: no call from this address is answered for a while. clock: our time, or a nonce, is wrong.
# region: it does not serve our address. busy: overloaded, or a failure of its own. key: the key, or its account.
# symbol: no such market. arguments: the request. unsupported: what was asked for is switched off, or not there.
Means: TypeAlias = Literal["limit", "ban", "clock", "region", "busy", "key", "symbol", "arguments", "unsupported"]
# The reader of the headers with the exchange's own count: `workers/exchange/counts.py`.
Reader: TypeAlias = Literal["binance", "bingx", "bitget", "bybit", "gate", "htx", "kucoin", "phemex", "upbit"]
MEANINGS: Final[tuple[Means, ...]] = get_args(Means)
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]

# Meanings whose codes are read at exchanges without a table too.
SHARED: Final[tuple[Means, ...]] = ("limit", "clock", "symbol", "key")
# The shortest and the longest pause, seconds, where an entry says no other. A ban lasts at least for what the entry
# says; the longest that is published lasts 3 days (binance-spot-api-docs: rest-api.md).
BOUNDS_S: Final[Mapping[Means, tuple[float, float]]] = {"limit": (1.0, 3600.0), "ban": (0.0, 3 * 86400.0)}
# Exchanges write the same words in any letter case.
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
        pause_s: how long to send no call if the answer does not say it.
        least_s: the shortest pause, whatever the answer names; without it 1 s, and for a ban `pause_s`.
        most_s: the longest pause, whatever the answer names and however often; without it an hour, for a ban 3 days.
        account: a limit of the account that signed, which says nothing of the address.
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
    pause_s: Positive | None = None
    least_s: Positive | None = None
    most_s: Positive | None = None
    account: bool = False
    note: str = ""

    @property
    def wrong(self) -> str:
        """What contradicts itself, and what is expected instead; empty if nothing does."""
        if (self.means in BOUNDS_S) != (self.pause_s is not None):
            return "pause_s: expected for `limit` and `ban`, and for nothing else"
        if self.pause_s is None and (self.least_s or self.most_s):
            return "least_s, most_s: expected with `pause_s` alone"
        if self.pause_s is not None and not self.bounds_s[0] <= self.pause_s <= self.bounds_s[1]:
            return "pause_s: expected between `least_s` and `most_s`"
        if self.account and self.means != "limit":
            return "account: expected for `limit` alone"
        if self.equals and self.contains:
            return "contains: expected nothing beside `equals`"
        if self.equals and not self.fields:
            return "fields: expected the fields that `equals` speaks of"
        if self.status is None and not self.texts:
            return "contains: expected at least one of `status`, `equals` and `contains`"
        if (self.fields or self.followed_by) and not self.texts:
            return "contains: expected a text, or `equals`"
        if any(name != name.lower() for name in self.without):
            return "without: expected names in lower case"
        return ""

    @property
    def bounds_s(self) -> tuple[float, float]:
        """The shortest and the longest pause that make sense for it, whatever an answer names."""
        least_s, most_s = BOUNDS_S.get(self.means, (0.0, 0.0))
        return self.least_s or (self.pause_s or 0.0 if self.means == "ban" else least_s), self.most_s or most_s

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
        if self.followed_by:
            found += rf"[^}}]*(?:{_any(self.followed_by)})"
        return re.compile(found, _FLAGS)


_1015: Final = "developers.cloudflare.com: Cloudflare 1xxx errors; rate limiting rules: blocks last 10 s at least"
# What the networks in front of exchanges say, whichever exchange it is. A page of theirs may be long.
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
    *(
        Answer(
            means="ban",
            status=status,
            fields=fields,
            equals=equals,
            contains=said,
            pause_s=60,
            least_s=10,
            source=_1015,
        )
        for status in (403, 429)
        for fields, equals, said in (
            ((), (), ("error code: 1015", "error 1015", ">1015<", "you are being rate limited")),
            (("error_code",), ("1015",), ()),
        )
    ),
)

# Refusals in the words of 429 at another status, where no table knows the exchange. At 200 they may be part of data, so
# they have to be what a field for errors says.
_OF_ERRORS: Final = ("error", "error_msg", "errormsg", "errmsg", "err_msg", "error_message", "msg", "message", "reason")
IN_WORDS: Final = tuple(
    Answer(
        means="limit",
        status=status,
        fields=fields,
        contains=("rate limit exceeded", "too many requests", *more),
        pause_s=2,
        source="RFC 6585: what 429 says; Bitstamp's 400.002 says it at 400, Zaif's 'time wait restriction' at 200",
    )
    for status, fields, more in (
        *((status, (), ()) for status in (400, 403, 420)),
        (200, _OF_ERRORS, ("request limit exceeded", "rate limit reached", "time wait restriction")),
    )
)


class PauseHeader(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A header that says how long to send no call, beside Retry-After.

    Its name may end with ``*``: all that begin so are meant.

    Args:
        gives: an ``instant`` in Unix seconds or milliseconds, or the time left in ``seconds`` or ``milliseconds``. A
            Unix time is known by its size whatever stands here.
        source: where that is published, or where it was seen.
    """

    gives: Literal["instant", "seconds", "milliseconds"]
    source: Text


# Names of such headers where no table knows the exchange.
OTHER_PAUSE_HEADERS: Final[Mapping[str, PauseHeader]] = {
    "x-rate-limit-reset": PauseHeader(gives="milliseconds", source="docs.delta.exchange: rate limits"),
}


class _Known:
    """All entries of one meaning. Words are looked for before patterns: these take 20 times as long, mostly in vain."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._entries = [(answer, answer.pattern) for answer in answers]
        self._words = sorted({text.lower() for answer, _ in self._entries for text in answer.texts})
        self._statuses = frozenset(answer.status for answer, pattern in self._entries if pattern is None)

    def find(self, status: int | None, body: str, headers: Iterable[str]) -> Answer | None:
        if status not in self._statuses:
            lowered = body.lower()
            if not any(word in lowered for word in self._words):
                return None
        for answer, pattern in self._entries:
            if answer.status not in (None, status):
                continue
            if answer.without and not {name.lower() for name in headers}.isdisjoint(answer.without):
                continue
            if pattern is None or pattern.search(body):
                return answer
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

    def find(self, means: Means, status: int | None, body: str, headers: Iterable[str] = ()) -> Answer | None:
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
