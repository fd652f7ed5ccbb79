"""What the Lua library can be asked, its keys and arguments packed and its answers unpacked by name.

Each function here makes the question for the entry of the same name in ``lua/*.lua``, whose first lines name the same
keys, arguments and answer. No other module knows in which order they come.
"""

import functools
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

from msgspec import Struct

from ..limits.costs import Bucket, Charge
from .grants import Grant, Refusal
from .keys import Keys, learned_of, pause_of
from .rules import BUCKET_FORMAT, KINDS, amount_of, thousandths, window_us_of
from .script import Argument

T = TypeVar("T")
Expected: TypeAlias = tuple[str, int, int]

# A question that may be run at any time, whatever Redis's clock shows: by one that is no member of the scope, and by a
# member that does not know the clock.
ANY_TIME: Final[Expected] = ("", 0, 1 << 53)
UNKNOWN_TIME: Final[Expected] = ("?", 0, 1 << 53)
_BUCKET: Final = struct.Struct(BUCKET_FORMAT)
_ASKED: Final = struct.Struct("<5d")
_RENEWAL: Final = struct.Struct("<3d")


class Question(Struct, Generic[T], frozen=True):
    """One call of the library.

    Args:
        entry: the name of the Lua function.
        keys: its keys, all of one exchange.
        args: its arguments.
        read: makes the answer's value of what Redis says; an answer of another form raises one of Python's errors.
    """

    entry: str
    keys: Sequence[str]
    args: Sequence[Argument]
    read: Callable[[Any], T]


class Planned(Struct, frozen=True):
    """The answer to a reservation, and to one that is looked at again.

    Args:
        answer: None where Redis has forgotten the reservation, or it came so late that it may be made anew.
        epoch: names what Redis remembers; None where the question did not ask for it.
    """

    answer: Grant | Refusal | None
    epoch: str | None = None


def reserve(
    keys: Keys,
    charges: Sequence[Charge],
    *,
    max_wait_us: int,
    lead_us: int,
    spread_us: int | None,
    ahead_us: int,
    known_epoch: str,
    new_epoch: str,
    reserve: float,
) -> Question[Planned]:
    """Reserves room for one call in all its buckets.

    Args:
        keys: the scope's.
        charges: what the call costs.
        max_wait_us: the longest wait, the lead not counted.
        lead_us: how long the caller needs to be ready to send.
        spread_us: how far its calls spread (`Spread.margin_us`); None while too little is measured.
        ahead_us: how far ahead it reserves at the most.
        known_epoch: the epoch that it knows; empty for none.
        new_epoch: one to begin where Redis has none.
        reserve: the part of every bucket that is not for this call.
    """
    asked = _ASKED.pack(max_wait_us, lead_us, spread_us or 0, spread_us is not None, ahead_us)
    args: list[Argument] = [asked, known_epoch, new_epoch, packed_all(charges, reserve)]
    return Question("reserve", _call_keys(keys, charges), args, functools.partial(_planned, buckets=len(charges)))


def again(
    keys: Keys,
    charges: Sequence[Charge],
    *,
    max_wait_us: int,
    lead_us: int,
    spread_us: int | None,
    at_us: int,
    reserve: float,
) -> Question[Planned]:
    """Looks at the reservation for `at_us` again; the other arguments are those of `reserve`."""
    asked = _ASKED.pack(max_wait_us, lead_us, spread_us or 0, spread_us is not None, at_us)
    args: list[Argument] = [asked, packed_all(charges, reserve)]
    return Question("again", _call_keys(keys, charges), args, functools.partial(_planned, buckets=len(charges)))


def _call_keys(keys: Keys, charges: Sequence[Charge]) -> list[str]:
    buckets = [keys.bucket(charge) for charge in charges]
    shared = (keys.clock, keys.epoch, keys.spread, keys.away, keys.members)
    return [*shared, *keys.pauses, *map(pause_of, buckets), *map(learned_of, buckets), *buckets]


def _planned(said: Any, buckets: int) -> Planned:
    outcome, *rest = said
    if outcome == b"forgotten":
        return Planned(None)
    delay_us, at_us, number, epoch, *more = rest
    held_by = None if number is None else int(number) - 1
    known = None if epoch is None else epoch.decode()
    if outcome == b"granted":
        unsure, must_tell, margin_us, spare_us, *ranks = more
        if len(ranks) != buckets:
            raise ValueError(buckets)
        grant = Grant(
            int(delay_us),
            int(at_us),
            tuple(map(int, ranks)),
            spare_us=math.inf if spare_us is None else int(spare_us),
            margin_us=math.inf if margin_us is None else int(margin_us),
            must_tell=must_tell == 1,
            sure=unsure == 0,
            held_by=held_by,
        )
        return Planned(grant, known)
    earliest_ms, wait_s = math.ceil(at_us / 1000), delay_us / 1e6
    if outcome == b"paused":
        return Planned(Refusal(earliest_ms, wait_s, "paused"), known)
    if outcome == b"refused":
        now_us = at_us - delay_us
        rooms = [((room_us - now_us) / 1e6, int(calls)) for calls, room_us in zip(more[::2], more[1::2], strict=True)]
        return Planned(Refusal(earliest_ms, wait_s, "budget", held_by, rooms), known)
    raise ValueError(outcome)


def late(
    keys: Keys, charges: Sequence[Charge], *, at_us: int, arrived_us: int, margin_us: int, answered: bool
) -> Question[None]:
    """Reports that the call granted for `at_us` has arrived by `arrived_us`, or, unanswered, may arrive still."""
    args: list[Argument] = [at_us, arrived_us, margin_us, int(answered), packed_all(charges)]
    return Question("late", _held_keys(keys, charges), args, nothing)


def back(keys: Keys, charges: Sequence[Charge], *, at_us: int) -> Question[None]:
    """Gives back the reservation for `at_us`."""
    return Question("back", _held_keys(keys, charges), [at_us, packed_all(charges)], nothing)


def _held_keys(keys: Keys, charges: Sequence[Charge]) -> list[str]:
    return [keys.clock, *(keys.bucket(charge) for charge in charges)]


def observe(keys: Keys, charge: Charge, *, counted: int, by_us: int, rank: int, span_us: int) -> Question[None]:
    """Reports what the exchange has counted, thousandths, within `span_us` up to `by_us`; `rank` is the grant's."""
    key = keys.bucket(charge)
    args: list[Argument] = [counted, by_us, rank, span_us, packed(charge.bucket, charge.cost)]
    return Question("observe", [key, keys.clock, learned_of(key)], args, nothing)


def limited(keys: Keys, charges: Sequence[Charge], *, at_us: int) -> Question[tuple[int, int] | None]:
    """Reports that a call granted for `at_us` met the limit; the answer is the lowered charge, and to what."""
    buckets = [keys.bucket(charge) for charge in charges]
    args: list[Argument] = [at_us, b"".join(packed(charge.bucket) for charge in charges)]
    pairs = [part for key in buckets for part in (key, learned_of(key))]
    return Question("limited", [keys.clock, *pairs], args, _lowered)


def remember(keys: Keys, key: str, bucket: Bucket, *, part: int, seen_us: int) -> Question[int]:
    """Restores what a bucket held when last seen, thousandths of its table's amount; the answer is what it holds."""
    return Question("remember", [key, keys.clock, learned_of(key)], [part, seen_us, packed(bucket)], int)


def pause(
    keys: Sequence[str],
    *,
    for_us: int,
    most_us: int,
    why: str,
    named: bool = True,
    at_us: int | None = None,
    again: bool = False,
) -> Question[float]:
    """Sets pauses; the answer is how long they hold now, seconds.

    Args:
        keys: of the pauses.
        for_us: how long.
        most_us: the most that it may become where the exchange refuses again.
        why: where the length is from, and what the exchange answered (`pauses.said`).
        named: the exchange itself named the length.
        at_us: when the call that met the limit was granted.
        again: it was set before, and may have been lifted since.
    """
    args: list[Argument] = [for_us, most_us, why, int(named), "" if at_us is None else at_us, int(again)]
    return Question("pause", keys, args, _seconds)


class Paused(Struct, frozen=True):
    """For how many seconds pauses hold still, when an operator last lifted one, which holds longest, and why."""

    left_s: float
    lifted_us: int | None
    longest: str
    why: str


class Seen(Struct, frozen=True):
    """One bucket as Redis has it: thousandths of what it may hold, and of its table's amount; see `Use`."""

    used: int
    effective: int
    lowered: int
    paused_us: int


def usage(keys: Keys, buckets: Mapping[str, Bucket]) -> Question[tuple[int, list[Seen], Paused]]:
    """Asks how full buckets are, by their keys; the answer is Redis's time, one each, and the scope's pauses."""
    names = list(buckets)
    asked = [keys.clock, *map(learned_of, names), *map(pause_of, names), *names, *keys.pauses]
    args = [b"".join(packed(bucket) for bucket in buckets.values())]
    return Question("usage", asked, args, functools.partial(_usage, count=len(names), keys=keys.pauses))


def paused(keys: Sequence[str]) -> Question[Paused]:
    """Asks for pauses."""
    return Question("paused", keys, [], functools.partial(_paused, keys=keys))


def clock(keys: Keys, *, ahead_us: int, error_us: int) -> Question[None]:
    """Publishes how far the exchange's clock is ahead of Redis's."""
    return Question("clock", [keys.clock], [ahead_us, error_us], nothing)


def trips(keys: Keys, *, span: int, ends_s: int, faster_s: Mapping[str, float]) -> Question[dict[str, float]]:
    """Publishes the fastest round trips of this span by endpoint, and asks for the fleet's, seconds."""
    pairs = [part for endpoint, trip_s in faster_s.items() for part in (int(trip_s * 1e6), endpoint)]
    return Question("trips", [keys.trips(span), keys.trips(span - 1)], [ends_s, *pairs], _trips)


class Beat(Struct, frozen=True):
    """What a member says of itself; see `membership` and ``shares.lua``."""

    id: str
    number: int
    lease_us: int
    part: int
    keep_us: int
    hash_id: str
    new_hash_id: str
    heard_ago_us: int
    others: Sequence[bytes]


class Beaten(Struct, frozen=True):
    """What it is answered."""

    now_us: int
    part: int
    count: int
    hash_id: str
    epoch: str
    since_us: int
    offset_us: int
    pause_till_us: int
    is_closed: bool
    others: list[bytes]


def beat(keys: Keys, mine: Beat, *, known_epoch: str, new_epoch: str) -> Question[Beaten]:
    """Says that a member is there."""
    asked = [keys.members, keys.away, keys.epoch, keys.clock, keys.pauses[0], keys.met]
    numbers = [mine.number, mine.lease_us, mine.part, mine.keep_us]
    names = [mine.hash_id, mine.new_hash_id, known_epoch, new_epoch]
    return Question("beat", asked, [mine.id, *numbers, *names, mine.heard_ago_us, *mine.others], _beaten)


class Renewal(Struct, frozen=True):
    """What a member says that beats as it last did.

    Args:
        id: its name.
        number: of the beat.
        lease_us: its lease.
        count: how many members it knows, itself included.
    """

    id: str
    number: int
    lease_us: int
    count: int


class Renewed(Struct, frozen=True):
    """The exchange's clock's offset; who has to beat by itself, and until when scopes are paused, by their places."""

    offset_us: int
    named: set[int]
    paused_till_us: dict[int, int]


def renew(scopes: Sequence[tuple[Keys, Renewal]]) -> Question[Renewed]:
    """Says that a worker is there in scopes of one exchange, as it last was."""
    asked = [scopes[0][0].clock, *(keys.pauses[0] for keys, _ in scopes), *(keys.members for keys, _ in scopes)]
    told = b"".join(_RENEWAL.pack(each.number, each.lease_us, each.count) for _, each in scopes)
    return Question("renew", asked, [told, *(each.id for _, each in scopes)], _renewed)


def leave(keys: Keys, member: str) -> Question[None]:
    """Says that a member uses its part no more."""
    return Question("leave", [keys.members, keys.away], [member], nothing)


def bury(keys: Keys, members: Sequence[str]) -> Question[None]:
    """Says that these members are dead."""
    return Question("bury", [keys.members, keys.away], members, nothing)


def give(keys: Keys, member: str, key: str, bucket: Bucket, grants: Sequence[int]) -> Question[None]:
    """Adds to a bucket what a member granted itself: pairs of an instant and thousandths."""
    args: list[Argument] = [member, bucket.kind, amount_of(bucket), window_us_of(bucket), *grants]
    return Question("give", [key, keys.clock, keys.members], args, nothing)


class Frame(Struct, frozen=True):
    """How Redis's clock was corrected, as far as every answer says it.

    Args:
        id: of the latest correction; empty for none.
        believed_us: when one that did not know the correction, or the clock, was last answered and believed it.
        behind_us: how far all corrections together may have set the clock too far back.
        lost_us: all windows count as full before this time.
    """

    id: str = ""
    believed_us: int = 0
    behind_us: int = 0
    lost_us: int = 0


def correct(
    keys: Keys, member: str, *, found: str, known: Frame, behind_us: int, unsure_us: int, new: str
) -> Question[tuple[str, int]]:
    """Reports that Redis's clock was set; the answer is the correction's id, `?` while it is doubted, and the time."""
    believed_us = known.believed_us if known.id == found else -1
    args: list[Argument] = [member, found, behind_us, unsure_us, new, believed_us]
    return Question("correct", [keys.members, keys.clock, keys.doubts], args, _corrected)


class Framed(Struct, frozen=True):
    """What comes with every answer.

    Args:
        frame: how Redis's clock was corrected.
        now_us: what that clock showed, corrected.
        was_run: False where the question came at a time for which it was not meant; then it left no trace.
        answer: the entry's own.
    """

    frame: Frame
    now_us: int
    was_run: bool
    answer: Any


def framed(said: Any) -> Framed:
    """Reads what stands around every answer."""
    correction, believed_us, behind_us, lost_us, now_us, was_run, answer = said
    frame = Frame(correction.decode(), int(believed_us), int(behind_us), int(lost_us))
    return Framed(frame, int(now_us), was_run == 1, answer)


def nothing(_: Any) -> None:
    """Reads an answer that says nothing."""


def _lowered(said: Any) -> tuple[int, int] | None:
    if said is None:
        return None
    number, part = said
    return int(number) - 1, int(part)


def _usage(said: Any, count: int, keys: Sequence[str]) -> tuple[int, list[Seen], Paused]:
    of_buckets, of_scope = said
    now_us, *numbers = map(int, of_buckets)
    if len(numbers) != 4 * count:
        raise ValueError(count)
    return now_us, [Seen(*numbers[4 * one : 4 * one + 4]) for one in range(count)], _paused(of_scope, keys)


def _seconds(said: Any) -> float:
    return float(said) / 1e6


def _paused(said: Any, keys: Sequence[str]) -> Paused:
    paused_us, lifted_us, longest, why = said
    lifted = None if lifted_us is None else int(lifted_us)
    return Paused(int(paused_us) / 1e6, lifted, keys[int(longest) - 1], why.decode(errors="replace"))


def _trips(said: Any) -> dict[str, float]:
    trips_s: dict[str, float] = {}
    for name, trip_us in zip(said[::2], said[1::2], strict=True):
        endpoint, trip_s = name.decode(), float(trip_us) / 1e6
        trips_s[endpoint] = min(trip_s, trips_s.get(endpoint, trip_s))
    return trips_s


def _beaten(said: Any) -> Beaten:
    now_us, part, count, hash_id, epoch, since_us, offset_us, pause_till_us, closed, *others = said
    numbers = int(since_us), int(offset_us), int(pause_till_us)
    return Beaten(int(now_us), int(part), int(count), hash_id.decode(), epoch.decode(), *numbers, closed == 1, others)


def _renewed(said: Any) -> Renewed:
    offset_us, named, paused = said
    ends = zip(paused[::2], paused[1::2], strict=True)
    return Renewed(int(offset_us), {number - 1 for number in named}, {number - 1: int(till) for number, till in ends})


def _corrected(said: Any) -> tuple[str, int]:
    correction, now_us = said
    return correction.decode(), int(now_us)


@functools.lru_cache(maxsize=4096)
def packed(bucket: Bucket, cost: float = 0.0, reserve: float = 0.0) -> bytes:
    """A charge as the library reads it; `reserve` is the part of the bucket that is not for this call."""
    cost_thousandths = thousandths(cost)
    amount = amount_of(bucket)
    # A call that is bigger than what bulk may use still gets its turn: when the bucket is empty.
    cap = max(math.floor(amount * (1 - reserve)), min(cost_thousandths, amount))
    kind, margin_us = KINDS.index(bucket.kind) + 1, math.ceil(bucket.margin_ms * 1000)
    return _BUCKET.pack(kind, amount, window_us_of(bucket), margin_us, cost_thousandths, cap)


def packed_all(charges: Sequence[Charge], reserve: float = 0.0) -> bytes:
    """The charges of one call."""
    return b"".join(packed(charge.bucket, charge.cost, reserve) for charge in charges)
