"""What a long run calls flat: a step of the connections to exchanges is, a handle or connection that stays is not."""

from collections.abc import Sequence
from typing import Any

import msgspec

from tests.bench.held import Handles, Sample, judge

QUIET = Sample(
    memory_mib={"worker-0": 100.0},
    handles={"worker-0": Handles(60, 50)},
    channels=50,
    unsettled=20,
    messages=9,
    keys=40,
    lasting=0,
)
SETTLED = msgspec.structs.replace(QUIET, unsettled=0)


def sample(**other: Any) -> Sample:
    return msgspec.structs.replace(QUIET, **other)


def held(exchanges: int, others: int) -> Sample:
    return sample(handles={"worker-0": Handles(exchanges, others)})


def grown(samples: Sequence[Sample], last: Sample = SETTLED, idle: int = 5) -> list[str]:
    """Returns what was not flat, of five exchanges."""
    return [row.what for row in judge(samples, last, {"worker-0": idle}, exchanges=5) if not row.flat]


def test_what_stays_as_it_was_is_flat() -> None:
    assert grown([QUIET] * 30) == []


def test_more_connections_at_once_are_no_leak_if_idle_ones_are_closed() -> None:
    assert grown([held(60, 50)] * 18 + [held(69, 50)] * 12) == []


def test_connections_that_are_left_when_no_call_comes_are_a_leak() -> None:
    assert grown([held(60, 50)] * 30, idle=6) == ["connections of worker-0 to exchanges: most, then idle"]


def test_a_step_of_other_handles_that_stays_is_a_leak() -> None:
    assert grown([held(60, 50)] * 18 + [held(60, 51)] * 12) == ["file handles of worker-0"]


def test_handles_that_come_and_go_are_flat() -> None:
    assert grown([held(60, 50), held(60, 55)] * 15) == []


def test_the_first_quarter_is_not_looked_at() -> None:
    assert grown([held(10, 20)] * 7 + [held(60, 50)] * 23) == []


def test_memory_may_grow_by_four_mib_or_five_percent() -> None:
    def of(mib: float) -> list[Sample]:
        return [sample(memory_mib={"worker-0": mib})] * 15

    assert grown(of(60) + of(64)) == []
    assert grown(of(60) + of(64.1)) == ["memory of worker-0, MiB"]
    assert grown(of(200) + of(210)) == []
    assert grown(of(200) + of(210.1)) == ["memory of worker-0, MiB"]


def test_what_counts_at_the_end_alone() -> None:
    assert grown([sample(channels=50)] * 30, sample(channels=51, unsettled=1, lasting=2)) == [
        "channels",
        "keys in Redis that never expire",
        "unsettled deliveries",
    ]
