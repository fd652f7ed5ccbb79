"""When a worker that is new to a Redis is sure of its clock."""

from workers.budget.newcomer import Newcomer, Other, read
from workers.budget.rules import PRESENT_S

HERE, AWAY = Other("a", 5_000_000, is_present=True), Other("b", 2_000_000, is_present=False)


def told(*answers: tuple[float, list[Other]]) -> bool:
    newcomer = Newcomer()
    for now_s, others in answers:
        newcomer.told(others, now_s, closed=now_s < 5)
    return newcomer.is_sure


def test_one_that_is_alone_is_sure_at_once() -> None:
    assert told((7.0, []))


def test_one_that_is_alone_waits_for_those_that_redis_may_have_forgotten() -> None:
    assert not told((1.0, []), (4.9, [Other("c", 0, is_present=False)]))
    assert told((1.0, []), (4.9, [Other("c", 0, is_present=False)]), (5.2, [Other("c", 0, is_present=False)]))


def test_another_one_that_is_answered_makes_it_sure() -> None:
    assert not told((7.0, [HERE]), (7.3, [HERE]))
    assert told((7.0, [HERE]), (7.3, [Other("a", 5_000_001, is_present=True)]))


def test_one_that_came_later_makes_it_sure_once_it_has_a_lease() -> None:
    assert not told((7.0, [HERE]), (7.3, [HERE, Other("c", 0, is_present=False)]))
    assert told((7.0, [HERE]), (7.3, [HERE, Other("c", 1, is_present=True)]))


def test_beside_others_that_are_away_it_waits_for_one_to_be_back() -> None:
    assert not told((7.0, [AWAY]), (7.0 + PRESENT_S - 0.01, [AWAY]))
    assert told((7.0, [AWAY]), (7.0 + PRESENT_S, [AWAY]))


def test_it_waits_for_as_long_as_another_one_looks_present_that_is_not_answered() -> None:
    assert not told((7.0, [HERE]), (99.0, [HERE]))
    assert told((7.0, [HERE]), (99.0, [Other("a", 5_000_000, is_present=False)]))


def test_one_that_was_sure_stays_sure() -> None:
    assert told((7.0, []), (7.3, [HERE]))


def test_others_are_read_as_redis_has_them() -> None:
    assert read(b"machine.1.cafe 5000000 present") == Other("machine.1.cafe", 5_000_000, is_present=True)
    assert read(b"machine.1.cafe 5000000 305000000") == Other("machine.1.cafe", 5_000_000, is_present=False)
