"""What workers report to every dispatcher through `fleet.reports`, several times a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from msgspec import Struct, msgpack

from .messages import Attempt, ErrorCode, Real, Whole, decode_with, digest_of


class BucketReport(Struct, frozen=True, omit_defaults=True):
    """One bucket of a lane: how full it is now, for all workers, and what this worker did since its last report.

    Args:
        used: the part of its capacity in use now, 0 to 1; of its fullest count where it has many (pairs, endpoints).
        effective: its present capacity, as a part of the amount in its table.
        paused_ms: how long its own pause still lasts, as the exchange asked for one.
        granted: what this worker's calls took from it, in its own units.
        waited_ms: how long these calls waited for it, together.
        refused: how many calls found no room in it in time.
        amount: what its table lets it hold, in its own units; 0 where the worker does not know.
        window_s: the window of that amount.
    """

    used: Real = 0.0
    effective: Real = 1.0
    paused_ms: Whole = 0
    granted: Real = 0.0
    waited_ms: Real = 0.0
    refused: Whole = 0
    amount: Real = 0.0
    window_s: Real = 0.0


class Named(Struct, frozen=True, omit_defaults=True):
    """A request in a report, by what may make it fail: its arguments, its subject, its caller.

    Args:
        digest: its `Request.digest`.
        subject: its `Request.subject_digest`.
        caller: a hash of its reply address; those without one count as one caller.
        against: how many of its failures count against the lane.
    """

    digest: str
    subject: str
    caller: str
    against: Whole = 0

    @classmethod
    def of(cls, attempt: Attempt, against: int = 0) -> Self:
        """The request of an attempt."""
        request = attempt.request
        return cls(request.digest, request.subject_digest, digest_of(f"caller {attempt.reply_to}"), against)

    @property
    def names(self) -> Sequence[str]:
        """Its digest, its subject and its caller."""
        return self.digest, self.subject, self.caller


class LaneReport(Struct, frozen=True, omit_defaults=True):
    """One lane at one worker, since its last report; counts are of that time alone.

    Args:
        lane: the lane's name.
        ok: attempts that returned data. Attempts that the exchange itself rejected (bad symbol) are in `rejected`.
        trials_ok: how many of those that returned data were trials.
        trials_void: trials without a verdict on the lane: no call was sent, or the request itself was refused.
        failed: attempts that failed, by code; only failures of the exchange or its network count against the lane.
        rejected: attempts that no retry could have answered.
        uncalled: attempts that ended without an HTTP call; they are in no other count.
        excused: how many failures of the exchange or its network do not count against the lane: answers that can't be
            used, a request that keeps failing while others are answered, one that had next to no time.
        failing: requests that failed, or were refused.
        answered: the names (`Named.names`) of requests that returned data, without probes.
        failed_ago_ms: how long ago the last attempt was sent that failed and counts against the lane; 0 for none.
        throttled: attempts returned unsent.
        failures_in_a_row: failures of the exchange or its network since the last attempt with another outcome, over the
            worker's life.
        in_flight: attempts that it holds now, without bulk ones, for which no other attempt waits.
        exchange_ms: mean time at the exchange of the attempts that were answered.
        buckets: the lane's buckets that are in use.
        paused_until_ms: the end of the pause that the exchange asked for on the whole scope.
        paused_by: where the length of that pause is from: a header, the text of an answer, our backoff.
        lifted_ms: when an operator last ended the scope's pauses, by Redis's clock; 0 for never.
        budget_ms: how long the budget of one attempt takes to come back, on average lately, in the one of its buckets
            where that takes longest. 0 while nothing is known.
        unanswered: HTTP calls in flight now.
        silent_ms: how long calls have been in flight without an answer to any of them; 0 with none in flight.
        slowness: latency relative to the usual one of the same method, of the attempts that returned data.
        own_part: the part of every limit that the worker keeps to while Redis is away; None while all workers share it.
        methods: the methods that the lane has; sent now and then, None in between.
        knowledge: the digest of its symbols and time frames, see `runtime.listings`; sent with `methods`.
    """

    lane: str
    ok: Whole = 0
    trials_ok: Whole = 0
    trials_void: Whole = 0
    failed: dict[ErrorCode, Whole] = {}
    rejected: Whole = 0
    uncalled: Whole = 0
    excused: Whole = 0
    failing: list[Named] = []
    answered: list[str] = []
    failed_ago_ms: Real = 0.0
    throttled: Whole = 0
    failures_in_a_row: Whole = 0
    in_flight: Whole = 0
    exchange_ms: Real = 0.0
    buckets: dict[str, BucketReport] = {}
    paused_until_ms: Whole = 0
    paused_by: str = ""
    lifted_ms: Whole = 0
    budget_ms: Real = 0.0
    unanswered: Whole = 0
    silent_ms: Real = 0.0
    slowness: Real = 1.0
    own_part: Real | None = None
    methods: list[str] | None = None
    knowledge: str = ""

    def at_rest(self) -> Self:
        """The same lane when nothing is counted, nothing is in flight and no bucket is in use any more."""
        return type(self)(
            self.lane,
            failures_in_a_row=self.failures_in_a_row,
            paused_until_ms=self.paused_until_ms,
            paused_by=self.paused_by,
            lifted_ms=self.lifted_ms,
            budget_ms=self.budget_ms,
            own_part=self.own_part,
        )


class Report(Struct, frozen=True):
    """A worker's heartbeat and summary.

    Args:
        worker: the worker's name, unique in the fleet.
        sent_ms: when it was sent.
        lanes: one entry for each lane that the worker serves; without `whole` only for those of which there is news.
        leaving: the worker shuts down and takes no more attempts.
        unopened: the lanes that it should serve but could not open yet, each with the reason; empty for one that it has
            just begun to open.
        version: the fleet's version; empty where it is older than this field.
        ccxt: ccxt's version.
        started_ms: when the worker started.
        busy: how much of a core it has used since its last report.
        whole: all lanes are listed. Otherwise those that are not have nothing new to count and are in the state that
            they had before; how full their buckets are by now the next whole report says.
        places: how many live attempts of one lane the worker holds at most; 0 where it is older than this field.
    """

    worker: str
    sent_ms: Whole
    lanes: list[LaneReport]
    leaving: bool = False
    unopened: dict[str, str] = {}
    version: str = ""
    ccxt: str = ""
    started_ms: Whole = 0
    busy: Real = 0.0
    whole: bool = True
    places: Whole = 0


_REPORT: Final = msgpack.Decoder(Report)


def decode_report(body: bytes) -> Report:
    """Reads a report; raises msgspec.DecodeError if it is none."""
    return decode_with(_REPORT, body)
