"""Whether a connection failure counts against its lane, or against the request that failed. Pure.

One caller must not take a lane from all others. A failure counts against the lane, with one exception: the lane answers
other requests meanwhile, and the same request or symbol has failed more than `OFTEN` times in a row, or never worked
here. Other kinds of failures (see `Verdict.of_connection`) are answers; they never count against the lane.
"""

import math
from typing import Final, NamedTuple, TypeVar

from schemas.messages import Request

T = TypeVar("T")

# How many failures in a row of one request or symbol count against the lane though others are answered. Where a lane
# fails now and then, most rows have one.
OFTEN: Final = 1
# A lane answers others meanwhile if its last answer to another request is at most this old, whenever the failures
# began. It delays the verdict on a lane of which only requests are left that it never answered.
MEANWHILE_S: Final = 0.5
# The same for a symbol that never worked here, which says less about the lane. Otherwise one caller with many such
# symbols would make a lane stand aside again as soon as it is back, before it can answer any other request.
MEANWHILE_NEW_S: Final = 3.0
# How many requests and symbols are remembered, of those that worked and of those that failed.
KEPT: Final = 1_000


class _Row(NamedTuple):
    """Failures in a row of one request or symbol, and when the first one ended."""

    times: int
    since_s: float


class _Latest:
    """When something last happened, and when it last happened to another request."""

    def __init__(self) -> None:
        self._digest = ""
        self._at_s = self._other_s = -math.inf

    def put(self, digest: str, now_s: float) -> None:
        """It happens to this request."""
        if digest != self._digest:
            self._digest, self._other_s = digest, self._at_s
        self._at_s = now_s

    def beside(self, digest: str) -> float:
        """When it last happened to another request than this one."""
        return self._at_s if digest != self._digest else self._other_s


class Blame:
    """The recent answers and failures of one lane. All times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._worked: dict[str, None] = {}
        self._failed: dict[str, _Row] = {}
        self._answered = _Latest()
        self._against = _Latest()

    def answered(self, request: Request, now_s: float) -> None:
        """The request was answered with data."""
        self._answered.put(request.digest, now_s)
        for key in (request.digest, request.subject):
            self._failed.pop(key, None)
            _keep(self._worked, key, None)

    def failed(self, request: Request, now_s: float) -> bool:
        """The request failed; returns whether that counts against the lane."""
        digest, subject = request.digest, request.subject
        rows: list[_Row] = []
        for key in (digest, subject):
            times, since_s = self._failed.get(key, (0, now_s))
            rows.append(_Row(times + 1, since_s))
            _keep(self._failed, key, rows[-1])
        longest = max(rows)
        others_s, against_s = self._answered.beside(digest), self._against.beside(digest)
        worked = subject in self._worked
        meanwhile_s = MEANWHILE_S if worked else MEANWHILE_NEW_S
        answers_others = now_s < others_s + meanwhile_s or others_s > max(longest.since_s, against_s)
        if longest.times > (OFTEN if worked else 0) and answers_others:
            return False
        self._against.put(digest, now_s)
        return True


def _keep(kept: dict[str, T], key: str, value: T) -> None:
    """Puts an entry last, and drops the oldest of too many."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > KEPT:
        del kept[next(iter(kept))]
