"""What a failure of the connection's kind speaks against: the lane, or the request that failed. Pure.

One caller must not take a lane from all others. So a failure is set beside what the lane answers meanwhile: it speaks
against the lane, until the same request, or symbol, has failed `OFTEN` in a row while others were answered; where the
symbol never worked here, at once. What fails in another way (see `Verdict.of_connection`) is an answer, and the
request's own trouble as far as a single request can tell.
"""

import math
from typing import Final, NamedTuple, TypeVar

from schemas.messages import Request

T = TypeVar("T")

# So many failures in a row of one request, or one symbol, speak against the lane while others are answered: those of a
# lane that fails now and then are mostly single.
OFTEN: Final = 1
# Others are answered meanwhile if one was within so long, whenever the row began. It delays the verdict on a lane that
# is asked what it never answered.
MEANWHILE_S: Final = 0.5
# The same for a symbol that never worked here: it says less of the lane. One caller's many such symbols would else send
# a lane away again as soon as it is back, before any other request can be answered.
MEANWHILE_NEW_S: Final = 3.0
# Requests and symbols that are remembered, those that worked and those that failed.
KEPT: Final = 1_000


class _Row(NamedTuple):
    """Failures in a row of one request, or one symbol, and when the first one ended."""

    times: int
    since_s: float


class _Latest:
    """The latest of something, and the latest of another request."""

    def __init__(self) -> None:
        self._digest = ""
        self._at_s = self._other_s = -math.inf

    def put(self, digest: str, now_s: float) -> None:
        """It happened to this request."""
        if digest != self._digest:
            self._digest, self._other_s = digest, self._at_s
        self._at_s = now_s

    def beside(self, digest: str) -> float:
        """When it last happened to another than this."""
        return self._at_s if digest != self._digest else self._other_s


class Blame:
    """What one lane answered, and failed, lately. All times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._worked: dict[str, None] = {}
        self._failed: dict[str, _Row] = {}
        self._answered = _Latest()
        self._against = _Latest()

    def answered(self, request: Request, now_s: float) -> None:
        """The request brought data."""
        self._answered.put(request.digest, now_s)
        for key in (request.digest, request.subject):
            self._failed.pop(key, None)
            _keep(self._worked, key, None)

    def failed(self, request: Request, now_s: float) -> bool:
        """The request failed; says whether that speaks against the lane."""
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
    """Puts it last; of too many the oldest goes."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > KEPT:
        del kept[next(iter(kept))]
