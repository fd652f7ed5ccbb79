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
