"""What a process knows of its own standstills."""

import pytest

from schemas.runtime.standstill import KEPT, LATE_S, TICK_S, Standstills


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_process_that_ticks_in_time_never_stood_still() -> None:
    clock = Clock()
    stills = Standstills(clock)
    for _ in range(50):
        clock.now_s += TICK_S + LATE_S / 2
        stills.tick()
    assert not stills.spans
    assert stills.awake_s() == clock.now_s
    assert stills.still_s(0.0, 1_000.0) == 0.0


@pytest.mark.parametrize("ticked", [False, True])
def test_a_standstill_is_known_before_the_next_tick_and_after_it(*, ticked: bool) -> None:
    clock = Clock()
    stills = Standstills(clock)
    clock.now_s = 105.0
    if ticked:
        stills.tick()
    whole_s = 5.0 - TICK_S - LATE_S
    assert stills.still_s(100.0, 105.0) == pytest.approx(whole_s)
    assert stills.still_s(104.0, 110.0) == pytest.approx(1.0)
    assert stills.still_s(102.0, 103.5) == pytest.approx(1.5)
    assert stills.still_s(90.0, 100.0) == 0.0
    assert stills.awake_s() == pytest.approx(105.0 - whole_s)


def test_the_clock_that_stops_never_goes_back() -> None:
    clock = Clock()
    stills = Standstills(clock)
    seen = [stills.awake_s()]
    for step_s in (0.05, 0.1, 0.04, 0.02, 3.0, 0.0, 0.1, 0.3):
        clock.now_s += step_s
        seen.append(stills.awake_s())
        if step_s >= 0.1:
            stills.tick()
            seen.append(stills.awake_s())
    assert seen == sorted(seen)


def test_all_standstills_count_though_only_the_last_ones_are_kept() -> None:
    clock = Clock()
    stills = Standstills(clock)
    for _ in range(2 * KEPT):
        clock.now_s += 1.0
        stills.tick()
    assert len(stills.spans) == KEPT
    assert stills.awake_s() == pytest.approx(100.0 + 2 * KEPT * (TICK_S + LATE_S))


def test_what_passed_before_it_ran_is_no_standstill() -> None:
    clock = Clock()
    stills = Standstills(clock)
    clock.now_s += 60.0
    stills.start()
    assert stills.awake_s() == clock.now_s
