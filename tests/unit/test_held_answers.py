"""However much some callers' requests wait in a dispatcher, there is room for another caller's."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.held import Held

MOST, MOST_BYTES = 1_000, 100_000


def filled(held: Held, caller: str, size_bytes: int) -> int:
    """How many requests of this size a caller finds room for."""
    for number in count():
        if not held.has_room(caller, size_bytes):
            return number
        held.take(caller, size_bytes)
    raise AssertionError


def test_a_caller_may_have_as_much_as_is_free() -> None:
    for size_bytes in (1, 1_000):
        held = Held(MOST, MOST_BYTES)
        most = min(MOST, MOST_BYTES // size_bytes)
        assert filled(held, "a", size_bytes) == most // 2
        assert filled(held, "b", size_bytes) == most // 4
        assert 0 < filled(held, "c", size_bytes) <= most // 8 + 1
        assert not held.has_room("a", size_bytes)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3_000)), max_size=400))
def test_there_is_room_for_one_more_caller(asked: list[tuple[str, int]]) -> None:
    held = Held(MOST, MOST_BYTES)
    taken: list[tuple[str, int]] = []
    for caller, size in asked:
        if held.has_room(caller, size):
            held.take(caller, size)
            taken.append((caller, size))
    assert held.count == len(taken) < MOST
    assert held.size_bytes == sum(size for _, size in taken)
    assert held.has_room("another", 3_000)
    for caller, size in taken:
        held.give(caller, size)
    assert held.count == held.size_bytes == 0
    assert filled(held, "a", 0) == MOST // 2
