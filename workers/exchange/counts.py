"""What an exchange says it has counted of our calls: read from its headers, set against our own buckets.

Each form of headers needs a reader in code; a table names the one that fits (``counts``). Pure: the clock is an
argument.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from ..limits.answers import Reader
from ..limits.costs import Bucket, Scope
from .told import number, until_s

_Header: TypeAlias = Callable[[str], float | None]


class Count(Struct, frozen=True):
    """An exchange's count of the calls from our address or account, whoever made them.

    Args:
        spent: how much was spent.
        left: how much more may be spent; only where `spent` is not known.
        window_s: the window of the limit it speaks of; None where it does not say.
        ends_s: in how many seconds that window ends; None where it does not say.
        scope: what the limit is counted by.
    """

    spent: float | None = None
    left: float | None = None
    window_s: float | None = None
    ends_s: float | None = None
    scope: Scope = "egress"

    def speaks_of(self, buckets: Sequence[Bucket]) -> int | None:
        """The place of the bucket that is meant: of those it may be, the one with the shortest window."""
        meant: int | None = None
        for index, bucket in enumerate(buckets):
            if bucket.scope != self.scope or bucket.kind not in ("fixed", "rolling"):
                continue
            if self.window_s is not None and abs(self.window_s - bucket.window_s) > 0.5:
                continue
            if self.ends_s is not None and self.ends_s > bucket.window_s + 0.5:
                continue
            if meant is None or bucket.window_s < buckets[meant].window_s:
                meant = index
        return meant

    def used(self, bucket: Bucket) -> float:
        """How much of this bucket was spent.

        Where only the rest is known, all but the rest of our bucket counts as spent: then we spend no more than the
        rest, whatever the exchange's own limit is.
        """
        return max(bucket.amount - (self.left or 0.0), 0.0) if self.spent is None else self.spent

    def span_s(self, bucket: Bucket) -> float:
        """The time that the count covers: of a window that ends, the part that has passed."""
        return bucket.window_s if self.ends_s is None else max(bucket.window_s - self.ends_s, 0.0)


def counted(reader: Reader | None, headers: Mapping[str, str], now_s: float) -> Count | None:
    """Reads what the exchange says it has counted.

    Args:
        reader: the one that its table names.
        headers: as received, in any case.
        now_s: the wall clock, Unix seconds.

    Returns:
        The count, or None where the headers have none.
    """
    if reader is None:
        return None
    lowered = {name.lower(): value for name, value in headers.items()}
    # A field of a header is named `<header>; <field>`.
    for name, value in [item for item in lowered.items() if ";" in item[1]]:
        fields = (part.partition("=") for part in value.split(";"))
        lowered |= {f"{name}; {field.strip().lower()}": given.strip() for field, equals, given in fields if equals}
    return _READERS[reader](lambda name: number(lowered.get(name, "")), now_s)


def _binance(header: _Header, _: float) -> Count | None:
    """Source: rest-api.md (`X-MBX-USED-WEIGHT-1M`), and the page on /sapi (`X-SAPI-USED-IP-WEIGHT-1M`)."""
    spent = header("x-mbx-used-weight-1m")
    if spent is None:
        spent = header("x-sapi-used-ip-weight-1m")
    return Count(spent=spent, window_s=60.0) if spent else None


def _htx(header: _Header, now_s: float) -> Count | None:
    """Spot says what is left and when the window ends; futures say the limit too, and its window in milliseconds.

    Source: the API documents (`X-HB-RateLimit-Requests-Remain`, `-Expire`; `ratelimit-limit`, `-remaining`,
    `-interval`, `-reset`).
    """
    if (left := header("x-hb-ratelimit-requests-remain")) is not None:
        ends_s = until_s(header("x-hb-ratelimit-requests-expire") or 0.0, now_s)
        return None if ends_s is None else Count(left=left, ends_s=ends_s)
    limit, left = header("ratelimit-limit"), header("ratelimit-remaining")
    if limit is None or left is None:
        return None
    interval_ms = header("ratelimit-interval")
    return Count(
        spent=max(limit - left, 0.0),
        window_s=interval_ms / 1000 if interval_ms else None,
        ends_s=until_s(header("ratelimit-reset") or 0.0, now_s),
    )


def _kucoin(header: _Header, _: float) -> Count | None:
    """Source: its page on rate limits (`gw-ratelimit-*`): the reset is in milliseconds from now, windows are 30 s."""
    limit, left, resets_ms = (header(f"gw-ratelimit-{name}") for name in ("limit", "remaining", "reset"))
    if limit is None or left is None or resets_ms is None:
        return None
    return Count(spent=max(limit - left, 0.0), window_s=30.0, ends_s=resets_ms / 1000)


def _bybit(header: _Header, _: float) -> Count | None:
    """Source: v5, rate limits (`X-Bapi-Limit-*`): an account's limit at one endpoint, never the address's."""
    limit, left = header("x-bapi-limit"), header("x-bapi-limit-status")
    if limit is None or left is None:
        return None
    return Count(spent=max(limit - left, 0.0), scope="account")


def _bingx(header: _Header, now_s: float) -> Count | None:
    """Source: its page on rate limits (`X-RateLimit-Requests-Remain`, `-Expire`, seen as 10000 and as a Unix time).

    The answer to an account's call is about the account's limit; the table gives such calls no bucket of the address.
    """
    left, expires = header("x-ratelimit-requests-remain"), header("x-ratelimit-requests-expire")
    if left is None or expires is None:
        return None
    ends_s = expires / 1000 if expires < 1e9 else until_s(expires, now_s)
    return None if ends_s is None else Count(left=left, ends_s=ends_s)


def _bitget(header: _Header, _: float) -> Count | None:
    """Source: seen by third parties (`x-mbx-used-remain-limit`): what is left at the endpoint in its second."""
    left = header("x-mbx-used-remain-limit")
    return None if left is None else Count(left=left, window_s=1.0)


def _gate(header: _Header, now_s: float) -> Count | None:
    """Source: seen by third parties with every answer (`X-Gate-RateLimit-*`): an endpoint's windows are of 10 s."""
    limit, left = header("x-gate-ratelimit-limit"), header("x-gate-ratelimit-requests-remain")
    if limit is None or left is None:
        return None
    ends_s = until_s(header("x-gate-ratelimit-reset-timestamp") or 0.0, now_s)
    return Count(spent=max(limit - left, 0.0), window_s=10.0, ends_s=ends_s)


def _phemex(header: _Header, _: float) -> Count | None:
    """Source: its page on rate limits (`x-ratelimit-capacity`, `-remaining`): the address has 5,000 in 5 minutes.

    The groups of an account have less, and a minute.
    """
    limit, left = header("x-ratelimit-capacity"), header("x-ratelimit-remaining")
    if limit is None or left is None:
        return None
    spent = max(limit - left, 0.0)
    return Count(spent=spent, window_s=300.0) if limit >= 5000 else Count(spent=spent, window_s=60.0, scope="account")


def _upbit(header: _Header, _: float) -> Count | None:
    """Source: its page on rate limits (`Remaining-Req: group=candles; min=1800; sec=9`): left in this second."""
    left = header("remaining-req; sec")
    return None if left is None else Count(left=left, window_s=1.0)


_READERS: Final[Mapping[Reader, Callable[[_Header, float], Count | None]]] = {
    "binance": _binance,
    "bingx": _bingx,
    "bitget": _bitget,
    "bybit": _bybit,
    "gate": _gate,
    "htx": _htx,
    "kucoin": _kucoin,
    "phemex": _phemex,
    "upbit": _upbit,
}
