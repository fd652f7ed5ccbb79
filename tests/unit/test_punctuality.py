"""How far ahead a process asks for instants, after it was late."""

from workers.budget.punctuality import LEAD_LIMIT_US, Punctuality


def test_a_late_process_asks_further_ahead_and_forgets_it_slowly() -> None:
    mine = Punctuality()
    assert mine.lead_us() == 0
    mine.late(20_000)
    assert mine.lead_us() == 20_000
    for _ in range(300):
        mine.late(0)
    assert mine.lead_us() == 0
    mine.late(10_000_000)
    assert mine.lead_us() == LEAD_LIMIT_US


def test_one_standstill_is_forgotten_as_fast_as_the_longest_lead() -> None:
    stood_still, late = Punctuality(), Punctuality()
    stood_still.late(10_000_000)
    late.late(LEAD_LIMIT_US)
    for _ in range(50):
        stood_still.late(0)
        late.late(0)
    assert stood_still.lead_us() == late.lead_us() < LEAD_LIMIT_US / 2
